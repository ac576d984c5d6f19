"""The table of faults: for each upstream fault, what the client gets, what the
decisions record, and the resource's health afterwards. docs/faults.md is the same table
in words; the last test compares the two."""

import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from libs.common.contracts.catalogue import Catalogue, ResourceState
from libs.common.settings.resources import resources_from_environment
from libs.simulator.faults.faults import parse_script
from libs.simulator.server import RunningSimulator
from tests.support.processes.ports import free_port
from tests.support.processes.stack import KEYS, Stack, of_providers
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulated import events_in
from tests.support.upstreams.simulator import Simulator

# One gateway serves the module. Each test has an empty Redis and its own upstream,
# because a kept connection of another test would change what a reset means.
pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Two rows wait for it; no other request of a busy machine takes that long.
GATEWAY = {"PROXY_REQUEST_TIMEOUT_SECONDS": "5"}

DOCS = Path(__file__).resolve().parents[3] / "docs" / "faults.md"
MODEL = "gpt-5.5"
FIRST, SECOND = list(KEYS)[:2]
# Choices are deterministic: the first resource before the next.
WEIGHTS = (1000.0, 100.0, 10.0, 1.0)
IN_A_MINUTE = "a date 60 s from now"
# HTTP dates have whole seconds only, and time passes; 30 s is the default.
A_MINUTE: Any = pytest.approx(46, abs=15)
ALREADY_TRIED = "already tried"
OF_A_KEY = "Rate limit reached for this key on tokens per min (TPM)."
MODEL_PAUSED = "cooling down for this model until "
KEY_REFUSED = "key refused by the upstream"


@dataclass(frozen=True)
class Client:
    """What the client gets."""

    status: int
    code: str | None = None
    retry_after: Any = None
    attempts: int = 1
    # How the body ends: "whole", "broken", or a stream's last event.
    end: str = "whole"


@dataclass(frozen=True)
class Mark:
    """What is recorded for the resource that failed."""

    # Prefix of its last error; None: the resource is not blamed.
    cause: str | None = None
    health: str = "unknown"
    model: str | None = None  # the cooldown applies to this model only
    pause_s: Any = None
    # Prefix of the reason why the next decision skips it.
    refused: str = ALREADY_TRIED


def one_fault(cause: str) -> Mark:
    return Mark(cause)


def paused(seconds: Any, cause: str = "429") -> Mark:
    return Mark(cause, "degraded", MODEL, seconds, MODEL_PAUSED)


def shut(cause: str) -> Mark:
    return Mark(cause, "unhealthy", refused=KEY_REFUSED)


BLAMELESS = Mark()
SAVED = Client(200, attempts=2)


@dataclass(frozen=True)
class Row:
    """A fault and its consequences."""

    id: str
    fault: dict[str, Any] | None  # None: nothing listens at the upstream's port
    alone: Client  # without another key
    mark: Mark
    saved: Client = SAVED  # with another key
    stream: bool = False
    names_model: bool = True
    cause: str | None = None  # what the next decision records about this resource

    @property
    def retried(self) -> bool:
        return self.saved.attempts > 1


def limited(id_: str, told_s: Any, pause_s: Any, **headers: str) -> Row:
    """A 429 for a model: the Retry-After of the client, and our cooldown."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    client = Client(429, "rate_limit_exceeded", told_s)
    fault = {"status": 429, "headers": sent}
    return Row(id_, fault, client, paused(pause_s), cause="rate_limited")


def failing(status: int, code: str = "server_error") -> Row:
    client, mark = Client(status, code), one_fault(str(status))
    return Row(str(status), {"status": status}, client, mark, cause="server_error")


def passed_on(status: int) -> Row:
    fault = {"status": status, "code": "of_the_client"}
    client = Client(status, "of_the_client")
    return Row(str(status), fault, client, BLAMELESS, client)


def ended(id_: str, fault: dict[str, Any], mark: Mark, *, end: str) -> Row:
    """A fault after the first byte, where another key makes no difference."""
    client = Client(200, end=end)
    return Row(id_, fault, client, mark, client, stream=end != "broken")


UNREACHABLE = Client(502, "upstream_unreachable")
TIMED_OUT = Client(504, "upstream_timeout")
ROWS = [
    Row(
        "connect refused",
        None,
        UNREACHABLE,
        one_fault("connecting failed"),
        cause="connect_error",
    ),
    Row(
        "reset before headers",
        {"reset": True},
        UNREACHABLE,
        one_fault("it closed the connection"),
        cause="connection_lost",
    ),
    Row(
        "not HTTP",
        {"garbage": True},
        UNREACHABLE,
        one_fault("it sent bytes that are no HTTP"),
        cause="connection_lost",
    ),
    Row(
        "timeout before headers",
        {"timeout": True},
        TIMED_OUT,
        one_fault("timeout"),
        TIMED_OUT,
    ),
    limited("429 retry-after-ms", 10, 9.5, retry_after_ms="9500"),
    limited("429 retry-after", 7, 7, retry_after="7"),
    limited("429 retry-after fraction", 8, 7.5, retry_after="7.5"),
    limited("429 retry-after date", A_MINUTE, A_MINUTE, retry_after=IN_A_MINUTE),
    limited(
        "429 x-ratelimit-reset-requests",
        20,
        20,
        x_ratelimit_remaining_requests="0",
        x_ratelimit_reset_requests="20s",
    ),
    limited("429 without a header", 30, 30),
    Row(
        "429 without a model",
        {"status": 429, "headers": {"retry-after": "7"}},
        Client(429, "rate_limit_exceeded", 7),
        Mark("429", "degraded", None, 7, "cooling down until "),
        names_model=False,
        cause="rate_limited",
    ),
    Row(
        "429 insufficient_quota",
        {"status": 429, "code": "insufficient_quota"},
        Client(429, "insufficient_quota", 30),
        shut("429 insufficient_quota"),
        cause="insufficient_quota",
    ),
    failing(500),
    failing(502),
    failing(503, "server_is_overloaded"),
    Row(
        "503 retry-after",
        {"status": 503, "headers": {"retry-after": "7"}},
        Client(503, "server_is_overloaded", 7),
        one_fault("503"),
        cause="server_error",
    ),
    failing(504),
    failing(529),
    Row(
        "401",
        {"status": 401},
        Client(401, "invalid_api_key"),
        shut("401 invalid_api_key"),
        cause="key_refused",
    ),
    Row(
        "403",
        {"status": 403},
        Client(403, "unsupported_country_region_territory"),
        shut("403 unsupported_country_region_territory"),
        cause="key_refused",
    ),
    Row(
        "403 model_not_found",
        {"status": 403, "code": "model_not_found"},
        Client(403, "model_not_found"),
        BLAMELESS,
        cause="model_refused",
    ),
    passed_on(400),
    passed_on(404),
    passed_on(409),
    passed_on(413),
    passed_on(422),
    ended("SSE cut", {"cut_after": 3}, one_fault("broke off"), end="response.failed"),
    ended(
        "SSE ends early",
        {"end_after": 3},
        one_fault("broke off"),
        end="response.failed",
    ),
    ended("JSON cut", {"wrong_length": True}, one_fault("broke off"), end="broken"),
    ended(
        "SSE server_error",
        {"failed_event": {"code": "server_error"}},
        one_fault("server_error in a stream"),
        end="response.failed",
    ),
    ended(
        "SSE rate_limit_exceeded",
        {"failed_event": {"code": "rate_limit_exceeded"}},
        paused(30),
        end="response.failed",
    ),
]
every_row = pytest.mark.parametrize("row", [pytest.param(r, id=r.id) for r in ROWS])


@dataclass(frozen=True)
class Told:
    """An answer, its event in the ledger and its decisions."""

    client: Client
    event: dict[str, Any]
    decisions: list[dict[str, Any]]

    @property
    def chosen(self) -> list[str | None]:
        return [decision["resource_id"] for decision in self.decisions]

    @property
    def reasons(self) -> list[str]:
        return [decision["reason"] for decision in self.decisions]

    @property
    def causes(self) -> list[str | None]:
        return [decision.get("cause") for decision in self.decisions]


@dataclass
class Setup:
    """A gateway in front of this test's own upstream."""

    stack: Stack
    upstream: RunningSimulator
    http: httpx.AsyncClient

    async def keys(self, count: int, *, closed: int = 0) -> None:
        """Publish this many keys. `closed`: nothing listens at the address of the first
        ones."""
        given = of_providers(
            resources_from_environment(self.stack.environ, self.upstream.base_url)
        )
        nowhere = f"http://127.0.0.1:{free_port()}/v1"
        resources = tuple(
            resource.model_copy(
                update={
                    "weight": weight,
                    "base_url": nowhere if n < closed else resource.base_url,
                }
            )
            for n, (resource, weight) in enumerate(
                zip(given[:count], WEIGHTS, strict=False)
            )
        )
        version = f"faults-{next(self.stack.versions)}"
        await self.stack.routing.load_library()
        await self.stack.routing.publish(
            Catalogue(version=version, resources=resources), "published"
        )

        async def adopted() -> bool:
            ready = await self.http.get(f"{self.stack.origin}/readyz")
            return bool(ready.json()["catalogue"] == version)

        await eventually(adopted)

    def fault(self, fault: dict[str, Any], key: str = FIRST, **more: Any) -> None:
        """Every request with this key gets the fault, unless `more` limits it. A 429
        names the limit of the key, unless it has a message."""
        headers = dict(fault.get("headers", {}))
        if fault.get("status") == 429 and "code" not in fault:
            fault = {"message": OF_A_KEY, **fault}
        if headers.get("retry-after") == IN_A_MINUTE:
            headers["retry-after"] = formatdate(time.time() + 60, usegmt=True)
        scripted = {**fault, "headers": headers} if headers else fault
        self.upstream.state.faults.add(
            parse_script({"key": key, "fault": scripted, **more})
        )

    async def ask(
        self,
        *,
        stream: bool = False,
        model: str = MODEL,
        names_model: bool = True,
        **more: str,
    ) -> Told:
        url, end, body = self.stack.url, "whole", b""
        request = self.http.build_request("GET", f"{url}/models")
        if names_model:
            ask = {"model": model, "input": "hello", "stream": stream, **more}
            request = self.http.build_request("POST", f"{url}/responses", json=ask)
        answer = await self.http.send(request, stream=True)
        try:
            async for chunk in answer.aiter_bytes():
                body += chunk
        except httpx.RemoteProtocolError:
            end = "broken"
        finally:
            await answer.aclose()
        if stream and answer.status_code == 200:
            end = events_in(body.decode())[-1]["type"]
        return await self._told(answer, body, end)

    async def _told(self, answer: httpx.Response, body: bytes, end: str) -> Told:
        headers, failed = answer.headers, answer.status_code >= 400
        # Neither a fraction nor a date: Codex reads whole seconds only.
        wait = headers.get("retry-after")
        client = Client(
            status=answer.status_code,
            code=json.loads(body)["error"]["code"] if failed else None,
            retry_after=int(wait) if wait else None,
            attempts=int(headers["x-proxy-attempts"]),
            end=end,
        )
        request_id = headers["x-proxy-request-id"]
        event = await self.stack.request(request_id)
        decisions = await self.stack.decisions(request_id)
        made = [decision for decision in decisions if decision["resource_id"]]
        last = made[-1] if made else {}
        assert headers.get("x-proxy-resource-id") == last.get("resource_id")
        assert headers.get("x-proxy-reason") == last.get("reason")
        return Told(client, event, decisions)

    async def state(self, position: int = 0) -> ResourceState:
        return (await self.stack.routing.states())[position]

    async def health_events(self, resource: str = "openai-1") -> list[dict[str, Any]]:
        events = await self.stack.events("health")
        return [event for event in events if event["resource_id"] == resource]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def setup(
    standing: Stack, http: httpx.AsyncClient, valkey: str
) -> AsyncIterator[Setup]:
    async with Simulator(KEYS) as upstream:
        yield Setup(standing, upstream, http)


@every_row
async def test_with_another_key(setup: Setup, row: Row) -> None:
    await setup.keys(2, closed=int(row.fault is None))
    setup.fault(row.fault or {})
    told = await setup.ask(stream=row.stream, names_model=row.names_model)
    assert told.client == row.saved
    _check_ledger(told)
    usual = "weighted_least_connections"
    if row.retried:
        assert told.chosen == ["openai-1", "openai-2"]
        assert told.reasons == [usual, usual]
        assert told.causes == [None, row.cause]
        assert _refused(told, "openai-1").startswith(row.mark.refused)
        assert (await setup.state(1)).health == "healthy"
    else:
        assert (told.chosen, told.reasons) == (["openai-1"], [usual])
        assert (await setup.state(1)).health == "unknown"
    await _check_mark(setup, row.mark)


@every_row
async def test_with_one_key(setup: Setup, row: Row) -> None:
    await setup.keys(1, closed=int(row.fault is None))
    setup.fault(row.fault or {})
    told = await setup.ask(stream=row.stream, names_model=row.names_model)
    assert told.client == row.alone
    _check_ledger(told)
    if row.retried:
        assert told.chosen == ["openai-1", None]
        assert told.reasons == ["weighted_least_connections", "no_capacity"]
        assert told.causes == [None, row.cause]
        assert _refused(told, "openai-1").startswith(row.mark.refused)
    else:
        assert told.chosen == ["openai-1"]
    await _check_mark(setup, row.mark)


def _check_ledger(told: Told) -> None:
    event, client = told.event, told.client
    served = client.status == 200 and client.end == "whole"
    assert event["outcome"] == ("completed" if served else "failed")
    assert event["status_code"] == client.status
    assert event["attempts"] == client.attempts
    if client.code:
        assert event["error_code"] == client.code
    # The headers of a failed attempt are not in the answer of a successful one.
    assert not (served and event.get("error_code"))


def _refused(told: Told, resource: str) -> str:
    """Why the last decision skipped a resource."""
    candidates = told.decisions[-1]["candidates"]
    (found,) = [c["refused"] for c in candidates if c["resource"] == resource]
    return str(found)


async def _check_mark(setup: Setup, mark: Mark) -> None:
    state, events = await setup.state(), await setup.health_events()
    assert state.health == mark.health
    assert state.errors == (1 if mark.cause else 0)
    assert (state.last_error or "").startswith(mark.cause or "")
    assert bool(state.last_error) == bool(mark.cause)
    assert bool(state.cooldown_until) == (mark.pause_s is not None)
    assert state.paused_models == ((mark.model,) if mark.model else ())
    assert state.in_flight == 0
    if mark.health == "unknown":
        assert events == []
        return
    (event,) = events
    assert (event["after"], event.get("model")) == (mark.health, mark.model)
    assert event["cause"].startswith(mark.cause)
    until_ms = event["cooldown_until_ms"]
    pause_s = until_ms and (until_ms - event["created_at_ms"]) / 1000
    assert pause_s == mark.pause_s


class TestFaultsInARow:
    async def test_three_pause_the_resource(self, setup: Setup) -> None:
        await setup.keys(1)
        for status, health in (
            (500, "unknown"),
            (502, "unknown"),
            (503, "degraded"),
        ):
            setup.fault({"status": status}, times=1)
            assert (await setup.ask()).client.status == status
            assert (await setup.state()).health == health
        (event,) = await setup.health_events()
        assert event["cause"] == "503"
        assert event.get("model") is None
        assert event["cooldown_until_ms"] - event["created_at_ms"] == 30_000

    async def test_an_answer_between_them_begins_anew(self, setup: Setup) -> None:
        await setup.keys(1)
        for _ in range(2):
            setup.fault({"status": 500}, times=2)
            for status in (500, 500, 200):
                assert (await setup.ask()).client.status == status
        assert (await setup.state()).health == "healthy"
        assert (await setup.state()).errors == 4


class TestAPausedModel:
    async def test_is_asked_elsewhere_and_others_are_not(self, setup: Setup) -> None:
        await setup.keys(2)
        limit = {"status": 429, "headers": {"retry-after": "60"}}
        setup.fault(limit, match={"model": MODEL}, times=1)
        assert (await setup.ask()).chosen == ["openai-1", "openai-2"]
        again, other = await setup.ask(), await setup.ask(model="gpt-5.4")
        assert again.chosen == ["openai-2"]
        assert _refused(again, "openai-1").startswith(MODEL_PAUSED)
        assert other.chosen == ["openai-1"]
        # Other resources do not end the cooldown.
        state = await setup.state()
        assert (state.health, state.paused_models) == ("degraded", (MODEL,))

    async def test_is_asked_all_the_same_when_no_key_is_left(
        self, setup: Setup
    ) -> None:
        await setup.keys(1)
        limit = {"status": 429, "headers": {"retry-after": "60"}}
        setup.fault(limit, times=1)
        assert (await setup.ask()).client.status == 429
        told = await setup.ask()
        assert told.client == Client(200)
        assert told.reasons == ["panic"]


class TestALimitOfAnAccount:
    @pytest.mark.parametrize("whose", ["organization org-1", "project proj_1"])
    async def test_pauses_the_model_on_all_its_keys(
        self, setup: Setup, whose: str
    ) -> None:
        await setup.keys(4)
        message = f"Rate limit reached for {MODEL} in {whose} on tokens per min (TPM)."
        limit = {"status": 429, "message": message, "headers": {"retry-after": "60"}}
        setup.fault(limit, times=1)
        told = await setup.ask()
        assert (told.client, told.chosen[0]) == (Client(200, attempts=2), "openai-1")
        assert told.chosen[1] in ("openai-3", "openai-4")
        assert _refused(told, "openai-2").startswith(MODEL_PAUSED)
        assert (await setup.ask(model="gpt-5.4")).chosen == ["openai-1"]
        # openai-1 and openai-2 are of one account.
        assert (await setup.state(1)).paused_models == (MODEL,)
        assert (await setup.state(2)).paused_models == ()

    async def test_clients_wait_for_the_soonest(self, setup: Setup) -> None:
        await setup.keys(3)
        for key, wait in zip(KEYS, ("60", "20", "40"), strict=False):
            setup.fault({"status": 429, "headers": {"retry-after": wait}}, key)
        told = await setup.ask()
        soonest = pytest.approx(11, abs=9)  # what is left of the 20 s
        assert told.client == Client(429, "rate_limit_exceeded", soonest, attempts=3)


class TestAllKeysFail:
    async def test_the_last_failure_is_passed_on(self, setup: Setup) -> None:
        await setup.keys(4)
        for key, status in zip(KEYS, (500, 429, 503), strict=False):
            setup.fault({"status": status}, key)
        told = await setup.ask()
        assert told.client == Client(503, "server_is_overloaded", attempts=3)
        # PROXY_MAX_ATTEMPTS is 3: the fourth key is not tried.
        assert told.chosen == ["openai-1", "openai-2", "openai-3"]
        assert told.causes == [None, "server_error", "rate_limited"]

    async def test_without_any_answer_it_is_unreachable(self, setup: Setup) -> None:
        await setup.keys(2, closed=2)
        told = await setup.ask()
        assert told.client == Client(502, "upstream_unreachable", attempts=2)
        assert told.chosen == ["openai-1", "openai-2", None]

    async def test_refused_keys_leave_no_capacity(self, setup: Setup) -> None:
        await setup.keys(2)
        for key in (FIRST, SECOND):
            setup.upstream.revoke(key)
        first, then = await setup.ask(), await setup.ask()
        assert first.client == Client(401, "invalid_api_key", attempts=2)
        assert (then.client.status, then.client.code) == (503, "no_capacity")
        assert then.client.retry_after >= 1
        assert (then.chosen, then.reasons) == ([None], ["no_capacity"])
        logged = setup.stack.gateway.logged
        assert logged("failover", cause="key_refused", resource="openai-1")
        assert logged("request_failed", status=401, resource="openai-2")
        assert logged("request_refused", cause="no_capacity", status=503)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        pytest.param({"status": 429}, "cooling_down", id="it is rate limited"),
        pytest.param({"status": 401}, "unhealthy", id="its key is refused"),
    ],
)
class TestAHomeThatIsPassedOver:
    async def test_of_a_session(
        self, setup: Setup, fault: dict[str, Any], cause: str
    ) -> None:
        await setup.keys(2)
        home = await setup.ask(prompt_cache_key=cause)
        setup.fault(fault, times=1)
        await setup.ask()  # another request finds out
        told = await setup.ask(prompt_cache_key=cause)
        assert (home.causes, told.causes) == ([None], [cause])
        assert (told.chosen, told.reasons) == (["openai-2"], ["session_failover"])

    async def test_of_a_response(
        self, setup: Setup, fault: dict[str, Any], cause: str
    ) -> None:
        await setup.keys(2)  # of one account
        first = await setup.ask()
        setup.fault(fault, times=1)
        await setup.ask()
        told = await setup.ask(previous_response_id=first.event["response_id"])
        assert (told.chosen, told.causes) == (["openai-2"], [cause])
        assert told.reasons == ["response_affinity"]


async def test_an_owner_without_a_stand_in_says_what_is_wrong(setup: Setup) -> None:
    await setup.keys(1)
    first = await setup.ask()
    setup.fault({"status": 429}, times=1)
    await setup.ask()
    told = await setup.ask(previous_response_id=first.event["response_id"])
    assert (told.chosen, told.reasons) == ([None], ["owner_limited"])
    assert told.causes == ["cooling_down"]


async def test_a_kept_connection_that_breaks_blames_nobody(setup: Setup) -> None:
    await setup.keys(2)
    await setup.ask()
    setup.fault({"reset": True}, times=1)
    told = await setup.ask()
    # Sent again on a new connection: an attempt, on a resource that is not to blame.
    assert told.client == Client(200, attempts=2)
    assert told.causes == [None, "stale_connection"]
    assert told.chosen[0] == "openai-1"
    assert (await setup.state()).errors == 0


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 1), ("-1", 30), ("soon", 30), ("", 30)]
)
async def test_a_429_always_says_whole_seconds_of_one_or_more(
    setup: Setup, value: str, seconds: int
) -> None:
    await setup.keys(1)
    setup.fault({"status": 429, "headers": {"retry-after": value}})
    told = await setup.ask()
    assert (told.client.status, told.client.retry_after) == (429, seconds)


async def test_the_document_has_the_rows_of_this_table() -> None:
    lines = re.findall(r"^\| `([^`]+)` \|(.*)", DOCS.read_text(), re.MULTILINE)
    documented = [(id_, told.split(" | ")[3]) for id_, told in lines]
    assert [id_ for id_, _ in documented] == [row.id for row in ROWS]
    causes = [re.findall("`([a-z_]+)`", decisions) for _, decisions in documented]
    assert causes == [[row.cause] if row.cause else [] for row in ROWS]
