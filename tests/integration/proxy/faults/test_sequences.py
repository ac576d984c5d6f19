"""Faults that follow each other, or that many keys have."""

from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.integration.proxy.faults.scene import FIRST, SECOND, Setup, refused_by
from tests.integration.proxy.faults.table import MODEL, MODEL_PAUSED, Client
from tests.support.processes.stack import KEYS
from tests.support.processes.waiting import eventually

# One gateway serves the module. Each test has an empty Redis and its own upstream,
# because a kept connection of another test would change what a reset means.
pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Two rows wait for it; no other request of a busy machine takes that long.
GATEWAY = {"PROXY_REQUEST_TIMEOUT_SECONDS": "5"}


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
        assert refused_by(again, "openai-1").startswith(MODEL_PAUSED)
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
        assert refused_by(told, "openai-2").startswith(MODEL_PAUSED)
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


class TestDeadKeys:
    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param({"status": 401, "code": "invalid_api_key"}, id="revoked"),
            pytest.param({"status": 429, "code": "insufficient_quota"}, id="no money"),
        ],
    )
    async def test_leave_a_request_its_attempts(
        self, setup: Setup, fault: dict[str, object]
    ) -> None:
        await setup.keys(4)
        for key in list(KEYS)[:3]:
            setup.fault(fault, key)
        told = await setup.ask()
        assert told.client == Client(200, attempts=4)  # PROXY_MAX_ATTEMPTS is 3
        assert (await setup.ask()).client == Client(200)


REVOKED = {"status": 401, "code": "invalid_api_key"}
FORBIDDEN = {"status": 403, "code": "unsupported_country_region_territory"}
NO_MONEY = {"status": 429, "code": "insufficient_quota"}
OVERLOADED = {"status": 503, "headers": {"retry-after": "3"}}
LIMITED = {"status": 429, "headers": {"retry-after": "7"}}
BROKEN = {"garbage": True}
BUSY = Client(503, "server_is_overloaded", 3, attempts=2)
SLOW = Client(429, "rate_limit_exceeded", 7, attempts=2)
GONE = Client(502, "upstream_unreachable", attempts=2)
DEAD = Client(401, "invalid_api_key", attempts=2)


class TestADeadKeyAndAnother:
    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    @pytest.mark.parametrize(
        ("first", "second", "client", "causes"),
        [
            (OVERLOADED, REVOKED, BUSY, "server_error key_refused"),
            (OVERLOADED, FORBIDDEN, BUSY, "server_error key_refused"),
            (OVERLOADED, NO_MONEY, BUSY, "server_error insufficient_quota"),
            (LIMITED, REVOKED, SLOW, "rate_limited key_refused"),
            (LIMITED, NO_MONEY, SLOW, "rate_limited insufficient_quota"),
            (BROKEN, REVOKED, GONE, "connection_lost key_refused"),
            (REVOKED, BROKEN, GONE, "key_refused connection_lost"),
            (REVOKED, OVERLOADED, BUSY, "key_refused server_error"),
            (REVOKED, REVOKED, DEAD, "key_refused key_refused"),
            (NO_MONEY, REVOKED, DEAD, "insufficient_quota key_refused"),
        ],
    )
    async def test_clients_are_told_what_they_can_wait_out(
        self,
        setup: Setup,
        first: dict[str, Any],
        second: dict[str, Any],
        client: Client,
        causes: str,
        stream: bool,
    ) -> None:
        await setup.keys(2)
        setup.fault(first)
        setup.fault(second, SECOND)
        told = await setup.ask(stream=stream)
        assert told.client == client
        # The row says what the client got, the decisions what each key said.
        event = told.event
        assert (event["outcome"], event["status_code"]) == ("failed", client.status)
        assert (event["error_code"], event["attempts"]) == (client.code, 2)
        assert told.chosen == ["openai-1", "openai-2", None]
        assert told.causes == [None, *causes.split()]

    async def test_the_upstreams_words_are_those_of_the_error_that_is_told(
        self, setup: Setup
    ) -> None:
        await setup.keys(2)
        busy = {"status": 503, "message": "Try later.", "code": "slow_down"}
        setup.fault({**busy, "headers": {"x-request-id": "req_busy"}})
        setup.fault({**REVOKED, "headers": {"x-request-id": "req_dead"}}, SECOND)
        ask = {"model": MODEL, "input": "hello"}
        answer = await setup.http.post(f"{setup.stack.url}/responses", json=ask)
        error, headers = answer.json()["error"], answer.headers
        assert (error["message"], error["code"]) == ("Try later.", "slow_down")
        assert headers["x-request-id"] == "req_busy"
        # Of the last attempt, as always.
        assert headers["x-proxy-resource-id"] == "openai-2"
        event = await setup.stack.request(headers["x-proxy-request-id"])
        assert (event["error_code"], event["error_message"]) == (
            "slow_down",
            "Try later.",
        )
        assert event["resource_id"] == "openai-2"

    @pytest.mark.parametrize(
        ("fault", "status"), [({"status": 503}, 503), (BROKEN, 502)]
    )
    async def test_openai_python_tries_again(
        self, setup: Setup, fault: dict[str, Any], status: int
    ) -> None:
        await setup.keys(2)
        setup.fault(fault, times=1)
        setup.fault(REVOKED, SECOND)
        async with AsyncOpenAI(
            base_url=setup.stack.url, api_key="any", max_retries=1
        ) as openai:
            made = await openai.responses.create(model=MODEL, input="hello")
        assert "Simulated" in made.output_text

        async def served() -> bool:
            events = await setup.stack.events("request")
            return [e["status_code"] for e in events[-2:]] == [status, 200]

        await eventually(served)


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
