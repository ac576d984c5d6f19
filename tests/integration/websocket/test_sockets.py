"""`WS /v1/responses` through a gateway process: what clients get, what the upstream
gets, and what the ledger records for each frame."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.resources.responses.responses import AsyncResponsesConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from libs.cli.commands import service_command
from libs.common.contracts.catalogue import Catalogue
from libs.common.contracts.verdicts import Verdict
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, running
from tests.support.processes.stack import KEYS, Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = "gpt-5.5"
LARGEST = 100_000
GATEWAY = {"PROXY_MAX_BODY_BYTES": str(LARGEST)}
ENDS = ("response.completed", "response.failed", "response.incomplete", "error")


@pytest_asyncio.fixture(loop_scope="module")
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=stack.url, api_key="client-secret", max_retries=0
    ) as client:
        yield client


@asynccontextmanager
async def socket(
    stack: Stack, path: str = "/responses", **headers: str
) -> AsyncIterator[ClientConnection]:
    url = stack.url.replace("http", "ws", 1) + path
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with connect(
        url, additional_headers=given, proxy=None, compression=None
    ) as opened:
        yield opened


async def ask(opened: ClientConnection, **fields: Any) -> None:
    frame = {"type": "response.create", "model": MODEL, "input": "hello", **fields}
    await opened.send(json.dumps(frame))


async def answer(opened: ClientConnection) -> list[dict[str, Any]]:
    """Frames up to the one that ends a response."""
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1]["type"] not in ENDS:
        frames.append(json.loads(await opened.recv()))
    return frames


async def asked(opened: ClientConnection, **fields: Any) -> list[dict[str, Any]]:
    await ask(opened, **fields)
    return await answer(opened)


async def end_of(opened: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """All frames until the gateway closes, and the close code."""
    frames: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        while True:
            frames.append(json.loads(await opened.recv()))
    assert opened.close_code is not None
    return frames, opened.close_code


async def refusal(stack: Stack, **headers: str) -> tuple[int, dict[str, Any], Any]:
    """Status, headers and error of a refused upgrade."""
    with pytest.raises(InvalidStatus) as refused:
        async with socket(stack, **headers):
            pass
    response = refused.value.response
    given = {name.lower(): value for name, value in response.headers.raw_items()}
    return response.status_code, given, json.loads(response.body or b"")["error"]


async def rows(stack: Stack, count: int) -> list[dict[str, Any]]:
    """The ledger's requests, once there are this many and nothing is in flight."""

    async def settled() -> list[dict[str, Any]]:
        events = await stack.events("request")
        idle = await stack.in_flight() == 0
        return events if len(events) >= count and idle else []

    events = await eventually(settled)
    assert len(events) == count
    return events


async def upgrades_are_over(stack: Stack) -> bool:
    """Whether every socket that the upstream accepted is closed."""
    entries = [entry for entry in stack.journal() if entry["status"] == 101]
    return bool(entries) and all(entry["ended_at"] for entry in entries)


async def turn(connection: AsyncResponsesConnection, **fields: Any) -> Any:
    """The finished response of one turn."""
    await connection.response.create(model=MODEL, **fields)
    async for event in connection:
        if event.type == "response.completed":
            return event.response
    raise AssertionError("the socket ended")


class TestTurns:
    async def test_openai_python_holds_a_conversation_on_one_socket(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        async with openai.responses.connect() as connection:
            first = await turn(connection, input="one", store=False)
            second = await turn(
                connection, input="two", store=False, previous_response_id=first.id
            )
        assert second.output_text.endswith("two")

        one, two = await rows(stack, 2)
        assert (one["response_id"], two["response_id"]) == (first.id, second.id)
        assert two["previous_response_id"] == first.id
        assert one["resource_id"] == two["resource_id"]
        for row in (one, two):
            assert (row["transport"], row["path"]) == ("ws", "/v1/responses")
            assert (row["outcome"], row["status_code"]) == ("completed", 200)
            assert row["usage_state"] == "final"
            assert row["first_token_ms"] > 0

    async def test_each_frame_has_a_decision_of_its_own(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            for _ in range(3):
                await asked(opened)
        stored = await rows(stack, 3)
        decided = [d for row in stored for d in await stack.decisions(row["id"])]
        assert [d["reason"] for d in decided] == [
            "weighted_least_connections",
            "socket",
            "socket",
        ]
        assert len({d["resource_id"] for d in decided}) == 1
        assert len(await stack.events("decision")) == 3

    async def test_a_lease_is_held_while_a_response_runs(self, stack: Stack) -> None:
        stack.simulator.state.holding.hold("*")
        async with socket(stack) as opened:
            assert await stack.in_flight() == 0
            await ask(opened)
            await eventually(lambda: _is(stack, in_flight=1))
            stack.simulator.state.holding.release()
            await answer(opened)
            await eventually(lambda: _is(stack, in_flight=0))
        await rows(stack, 1)

    async def test_lanes_are_told_apart(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await stack.fault(stall_after=2)
            await ask(opened, stream_id="slow")
            started = [json.loads(await opened.recv()) for _ in range(2)]
            quick = await asked(opened, stream_id="quick")
        assert {frame["stream_id"] for frame in started} == {"slow"}
        assert {frame["stream_id"] for frame in quick} == {"quick"}
        done, left = await rows(stack, 2)
        assert done["response_id"] == quick[-1]["response"]["id"]
        assert done["outcome"] == "completed"
        assert left["response_id"] == started[0]["response"]["id"]
        assert left["outcome"] == "cancelled"

    async def test_frames_queue_in_their_order(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            for word in ("one", "two", "three"):
                await ask(opened, input=word)
            ids = [(await answer(opened))[-1]["response"]["id"] for _ in range(3)]
        assert [row["response_id"] for row in await rows(stack, 3)] == ids

    async def test_a_refused_frame_fails_alone(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            (error,) = await asked(opened, previous_response_id="resp_unknown")
            good = await asked(opened)
        assert (error["type"], error["status"]) == ("error", 400)
        assert good[-1]["type"] == "response.completed"
        failed, completed = await rows(stack, 2)
        assert failed["outcome"] == "failed"
        assert failed["status_code"] == 400
        assert failed["error_code"] == "previous_response_not_found"
        assert completed["outcome"] == "completed"

    async def test_a_frame_that_asks_for_nothing_is_no_request(
        self, stack: Stack
    ) -> None:
        async with socket(stack) as opened:
            await opened.send('{"type": "response.processed"}')
            await opened.send("no JSON")
            (error,) = await answer(opened)
            assert error["status"] == 400
            await asked(opened)
        await rows(stack, 1)

    async def test_frames_pass_untouched(self, stack: Stack) -> None:
        text = (
            '{ "type" : "response.create", '
            '"model":"gpt-5.5" ,"input":"\\u00e9 \U0001f600"}'
        )
        journal = stack.simulator.state.journal
        journal.keep_bodies = True
        try:
            async with socket(stack) as opened:
                await opened.send(text)
                got = [await opened.recv()]
                while json.loads(got[-1])["type"] not in ENDS:
                    got.append(await opened.recv())
        finally:
            journal.keep_bodies = False
        (sent,) = [
            e
            for e in journal.shown(None, bodies=True)["entries"]
            if e["method"] == "WS"
        ]
        assert b64decode(sent["body"]) == text.encode()
        assert b64decode(sent["response_body"]).decode() == "".join(map(str, got))

    async def test_a_session_named_in_a_frame_is_bound(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await asked(opened, prompt_cache_key="conv-1")
        (row,) = await rows(stack, 1)
        assert row["session_id"] == "conv-1"
        async with socket(stack, session_id="conv-1") as opened:
            await asked(opened)
        _, again = await rows(stack, 2)
        assert again["resource_id"] == row["resource_id"]
        (decision,) = await stack.decisions(again["id"])
        assert decision["reason"] == "session_affinity"


class TestMoves:
    """An upgrade is routed by its headers; the ids in its first frame may belong to
    another account."""

    async def test_a_first_frame_goes_to_the_account_of_its_ids(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        stack.simulator.state.holding.hold("*")
        making = [
            asyncio.create_task(openai.responses.create(model=MODEL, input="one"))
            for _ in KEYS
        ]
        await eventually(lambda: _is(stack, in_flight=len(KEYS)))
        stack.simulator.state.holding.release()
        made = [await task for task in making]
        homes = {row["response_id"]: row for row in await rows(stack, len(made))}
        assert len({row["resource_id"] for row in homes.values()}) == len(KEYS)
        for response in made:
            async with socket(stack) as opened:
                frames = await asked(opened, previous_response_id=response.id)
                again = await asked(opened)
            assert frames[-1]["type"] == again[-1]["type"] == "response.completed"
        for first, second in pairs((await rows(stack, 3 * len(made)))[len(made) :]):
            home = homes[first["previous_response_id"]]
            assert first["resource_id"] == home["resource_id"]
            assert second["resource_id"] == home["resource_id"]
            reasons = [d["reason"] for d in await stack.decisions(first["id"])]
            moved = ["response_affinity"] if first["attempts"] == 2 else []
            assert reasons == ["weighted_least_connections", *moved]
            causes = [d.get("cause") for d in await stack.decisions(first["id"])]
            assert causes == [None, "lives_elsewhere"][: first["attempts"]]
        await eventually(lambda: upgrades_are_over(stack))

    async def test_a_home_that_refuses_leaves_the_socket_where_it_is(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        made = await openai.responses.create(model=MODEL, input="one")
        (home,) = await rows(stack, 1)
        await stack.fault(times=None, key=key_of(home), ws_refuse=500)
        async with socket(stack) as opened:
            frames = await asked(opened, previous_response_id=made.id)
        _, row = await rows(stack, 2)
        assert row["resource_id"] != home["resource_id"]
        sibling = row["account_id"] == home["account_id"]
        assert (frames[-1]["type"] == "response.completed") == sibling


def pairs(stored: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(stored[::2], stored[1::2], strict=True))


class TestUpgrade:
    async def test_headers_travel_and_secrets_do_not(self, stack: Stack) -> None:
        async with socket(
            stack,
            path="/responses?a=b%20c",
            authorization="Bearer client-secret",
            cookie="c=client-secret",
            x_proxy_session_name="client-secret",
            openai_organization="client-secret",
            openai_beta="responses_websockets=2026-02-06",
            user_agent="codex/1",
            sec_websocket_protocol="openai-insecure-api-key.client-secret",
        ) as opened:
            await asked(opened)
        upgrade, _ = stack.journal()
        headers = dict(upgrade["headers"])
        lowered = {name.lower(): value for name, value in headers.items()}
        assert lowered["openai-beta"] == "responses_websockets=2026-02-06"
        assert lowered["user-agent"] == "codex/1"
        assert lowered["authorization"].removeprefix("Bearer ") in KEYS
        assert "sec-websocket-extensions" not in lowered
        assert len(headers) == len(upgrade["headers"])
        assert upgrade["query"] == "a=b%20c"
        assert "client-secret" not in json.dumps(upgrade)

    async def test_the_101_says_where_the_socket_leads(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            assert opened.response is not None
            headers = opened.response.headers
            names = [name.lower() for name, _ in headers.raw_items()]
        (row,) = await rows(stack, 1)
        assert headers["x-proxy-request-id"] == row["id"]
        assert headers["x-proxy-attempts"] == "1"
        assert headers["x-proxy-resource-id"] == row["resource_id"]
        assert headers["x-proxy-reason"] == "weighted_least_connections"
        upgrade, _ = stack.journal()
        told = {name.lower(): value for name, value in upgrade["response_headers"]}
        assert headers["x-request-id"] == told["x-request-id"]
        assert "openai-organization" not in names
        assert len(set(names)) == len(names)

    async def test_a_handshake_goes_on_to_the_next_key(self, stack: Stack) -> None:
        await stack.fault(revoked=True)
        async with socket(stack) as opened:
            await asked(opened)
        (row,) = await rows(stack, 1)
        assert (row["outcome"], row["attempts"]) == ("completed", 2)
        first, second = await stack.decisions(row["id"])
        assert first["resource_id"] != second["resource_id"] == row["resource_id"]
        assert (first.get("cause"), second["cause"]) == (None, "key_refused")
        states = {state.id: state.health for state in await stack.routing.states()}
        assert states[first["resource_id"]] == "unhealthy"

    @pytest.mark.parametrize(
        ("fault", "status", "attempts"),
        [
            ({"ws_refuse": 426}, 426, 1),
            ({"ws_refuse": 404}, 404, 1),
            ({"revoked": True}, 401, 3),
            ({"ws_refuse": 503}, 503, 3),
            ({"ws_refuse": 429}, 429, 3),
        ],
    )
    async def test_a_refusal_is_passed_on(
        self, stack: Stack, fault: dict[str, Any], status: int, attempts: int
    ) -> None:
        await stack.fault(times=None, **fault)
        got, headers, error = await refusal(stack)
        assert got == status
        assert error["message"]
        assert ("retry-after" in headers) == (status == 429)
        (row,) = await rows(stack, 1)
        assert (row["transport"], row["outcome"]) == ("ws", "failed")
        assert (row["status_code"], row["attempts"]) == (status, attempts)
        assert headers["x-proxy-request-id"] == row["id"]
        assert len(await stack.decisions(row["id"])) == attempts

    async def test_an_unknown_pool_is_refused(self, stack: Stack) -> None:
        status, _, error = await refusal(stack, x_pool_id="nowhere")
        assert (status, error["code"]) == (400, "unknown_pool")
        assert stack.journal() == []
        (row,) = await rows(stack, 1)
        assert row["error_code"] == "unknown_pool"

    async def test_other_paths_have_no_sockets(self, stack: Stack) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with socket(stack, path="/realtime"):
                pass
        assert refused.value.response.status_code == 426

    async def test_an_unused_socket_leaves_nothing(self, stack: Stack) -> None:
        async with socket(stack):
            assert await stack.in_flight() == 0
        await eventually(lambda: upgrades_are_over(stack))
        assert await stack.events("request") == []


class TestEnds:
    async def test_an_upstream_that_is_cut_is_told_with_an_error_frame(
        self, stack: Stack
    ) -> None:
        await stack.fault(ws_cut_after=3)
        async with socket(stack) as opened:
            await ask(opened)
            frames, code = await end_of(opened)
        *events, error = frames
        assert len(events) == 3
        assert code == 1011
        assert (error["type"], error["status"]) == ("error", 502)
        assert error["error"]["code"] == "upstream_unreachable"
        assert error["error"]["type"] == "server_error"
        assert error["error"]["param"] is None
        (row,) = await rows(stack, 1)
        assert (row["outcome"], row["status_code"]) == ("failed", 502)
        assert row["error_code"] == "upstream_unreachable"
        assert row["response_id"] == events[0]["response"]["id"]
        states = {state.id: state for state in await stack.routing.states()}
        assert states[row["resource_id"]].errors == 1

    async def test_each_lane_is_told(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await stack.fault(stall_after=1)
            await ask(opened, stream_id="a")
            await opened.recv()
            await stack.fault(ws_cut_after=1)
            await ask(opened, stream_id="b")
            frames, _ = await end_of(opened)
        told = [frame["stream_id"] for frame in frames if frame["type"] == "error"]
        assert told == ["a", "b"]
        assert {row["outcome"] for row in await rows(stack, 2)} == {"failed"}

    async def test_an_upstream_that_closes_in_its_answer_closes_the_client(
        self, stack: Stack
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            await stack.fault(end_after=3)
            await ask(opened)
            frames, code = await end_of(opened)
        assert len(frames) == 4
        assert frames[-1]["type"] == "error"
        assert code == 1000
        one, two = await rows(stack, 2)
        assert (one["outcome"], two["outcome"]) == ("completed", "failed")

    @pytest.mark.parametrize("abrupt", [True, False], ids=["dropped", "closed"])
    async def test_a_client_that_leaves_has_cancelled(
        self, stack: Stack, abrupt: bool
    ) -> None:
        await stack.fault(stall_after=2)
        async with socket(stack) as opened:
            await ask(opened)
            created = json.loads(await opened.recv())
            await opened.recv()
            assert await stack.in_flight() == 1
            if abrupt:
                opened.transport.abort()
            else:
                await opened.close()
            await eventually(lambda: upgrades_are_over(stack))
        (row,) = await rows(stack, 1)
        assert row["outcome"] == "cancelled"
        assert row["response_id"] == created["response"]["id"]
        states = {state.id: state for state in await stack.routing.states()}
        assert states[row["resource_id"]].errors == 0

    async def test_a_client_that_leaves_after_its_answer_has_completed(
        self, stack: Stack
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            opened.transport.abort()
        (row,) = await rows(stack, 1)
        assert row["outcome"] == "completed"

    async def test_a_frame_over_the_limit_closes_the_socket(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await ask(opened, input="x" * LARGEST)
            frames, code = await end_of(opened)
        assert (frames, code) == ([], 1009)
        await eventually(lambda: upgrades_are_over(stack))
        assert await stack.events("request") == []

    async def test_large_events_pass(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            frames = await asked(opened, input="x" * (LARGEST - 100))
        assert frames[-1]["type"] == "response.completed"


DEATHS: dict[str, dict[str, Any]] = {
    "401": {"revoked": True},
    "quota": {"status": 429, "code": "insufficient_quota"},
    "429": {"status": 429, "headers": {"retry-after": "60"}},
    "500": {"status": 500},
    "reset": {"reset": True},
    "closes": {"end_after": 0},
    "500 after its beginning": {"error_event": {"code": "server_error"}},
    "cut after its beginning": {"ws_cut_after": 2},
}
CAUSES = {
    "401": "key_refused",
    "quota": "insufficient_quota",
    "429": "rate_limited",
    "500": "server_error",
    "reset": "connection_lost",
    "closes": "connection_lost",
    "500 after its beginning": "server_error",
    "cut after its beginning": "connection_lost",
}


class TestDeadKeys:
    """A socket does not inherit a key that died."""

    @pytest.mark.parametrize("death", DEATHS)
    async def test_a_turn_that_fails_before_its_answer_goes_to_another_key(
        self, stack: Stack, death: str
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            (first,) = await rows(stack, 1)
            key = key_of(first)
            await stack.fault(times=None, key=key, **DEATHS[death])
            for _ in range(2):
                frames = await asked(opened)
                assert frames[-1]["type"] == "response.completed"
        _, moved, later = await rows(stack, 3)
        assert (moved["outcome"], moved["status_code"]) == ("completed", 200)
        assert moved["attempts"] == 2
        assert moved["resource_id"] == later["resource_id"] != first["resource_id"]
        one, two = await stack.decisions(moved["id"])
        assert (one["reason"], one.get("cause")) == ("socket", None)
        assert one["resource_id"] == first["resource_id"]
        assert (two["resource_id"], two["cause"]) == (
            moved["resource_id"],
            CAUSES[death],
        )
        (only,) = await stack.decisions(later["id"])
        assert only["reason"] == "socket"

    @pytest.mark.parametrize("verdict", ["refused", "exhausted", "limited"])
    async def test_a_turn_leaves_a_key_that_another_request_saw_die(
        self, stack: Stack, verdict: Any
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            (first,) = await rows(stack, 1)
            said = Verdict(kind=verdict, cause="429 said", cooldown_ms=60_000)
            await stack.routing.verdict(first["resource_id"], said)
            frames = await asked(opened)
            assert frames[-1]["type"] == "response.completed"
        _, moved = await rows(stack, 2)
        assert moved["resource_id"] != first["resource_id"]
        assert moved["attempts"] == 1
        (decision,) = await stack.decisions(moved["id"])
        expected = "cooling_down" if verdict == "limited" else "unhealthy"
        assert decision["cause"] == expected
        assert decision["reason"] == "weighted_least_connections"

    async def test_a_delta_is_told_to_start_anew(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            (*_, done) = await asked(opened, store=False)
            (first,) = await rows(stack, 1)
            said = Verdict(kind="exhausted", cause="429 insufficient_quota")
            await stack.routing.verdict(first["resource_id"], said)
            delta = {"store": False, "previous_response_id": done["response"]["id"]}
            (error,) = await asked(opened, **delta)
            assert (error["type"], error["status"]) == ("error", 400)
            assert error["error"]["code"] == "previous_response_not_found"
            assert error["error"]["param"] == "previous_response_id"
            # The same socket serves the whole input.
            frames = await asked(opened, store=False)
            assert frames[-1]["type"] == "response.completed"
        _, told, anew = await rows(stack, 3)
        assert (told["outcome"], told["error_code"]) == (
            "failed",
            "affinity_owner_unavailable",
        )
        (decision,) = await stack.decisions(told["id"])
        assert (decision["reason"], decision["cause"]) == ("owner_gone", "unhealthy")
        assert anew["resource_id"] != first["resource_id"]

    async def test_a_key_that_was_removed_is_left(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            (row,) = await rows(stack, 1)
            found = await stack.routing.catalogue()
            left = tuple(r for r in found.resources if r.id != row["resource_id"])
            await stack.routing.publish(
                Catalogue(version="fewer", resources=left), "fewer"
            )
            frames = await asked(opened)
            assert frames[-1]["type"] == "response.completed"
        _, moved = await rows(stack, 2)
        assert moved["resource_id"] != row["resource_id"]
        (decision,) = await stack.decisions(moved["id"])
        assert decision["cause"] == "gone"

    async def test_when_all_keys_fail_the_last_error_is_told(
        self, stack: Stack
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            await stack.fault(times=None, status=429, code="rate_limit_exceeded")
            (error,) = await asked(opened)
            assert (error["status"], error["error"]["code"]) == (
                429,
                "rate_limit_exceeded",
            )
            assert int(error["headers"]["retry-after"]) >= 1
        _, failed = await rows(stack, 2)
        assert (failed["outcome"], failed["status_code"]) == ("failed", 429)
        assert failed["attempts"] == 3  # PROXY_MAX_ATTEMPTS
        assert len(await stack.decisions(failed["id"])) == 3

    async def test_a_client_that_leaves_while_another_key_is_tried(
        self, stack: Stack
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            (first,) = await rows(stack, 1)
            await stack.fault(key=key_of(first), status=500)
            for key in set(KEYS) - {key_of(first)}:
                stack.simulator.state.holding.hold(key)
            try:
                await ask(opened)
                await eventually(lambda: moved_from(stack, first))
                opened.transport.abort()
                _, left = await rows(stack, 2)
            finally:
                stack.simulator.state.holding.release()
        assert (left["outcome"], left["attempts"]) == ("cancelled", 2)
        assert left["resource_id"] != first["resource_id"]
        assert len(await stack.decisions(left["id"])) == 2
        await eventually(lambda: upgrades_are_over(stack))

    async def test_a_gateway_that_dies_while_another_key_is_tried(
        self, valkey: str, tmp_path: Path
    ) -> None:
        async with gateway_stack(valkey, tmp_path) as stack:
            async with socket(stack) as opened:
                await asked(opened)
                (first,) = await rows(stack, 1)
                await stack.fault(key=key_of(first), status=500)
                for key in set(KEYS) - {key_of(first)}:
                    stack.simulator.state.holding.hold(key)
                await ask(opened)
                await eventually(lambda: moved_from(stack, first))
                stack.gateway.kill()
                assert await stack.in_flight() == 1
                await eventually(lambda: reaped(stack))
            _, lost = await rows(stack, 2)
            assert (lost["outcome"], lost["attempts"]) == ("interrupted", 2)
            assert lost["resource_id"] != first["resource_id"]
            assert len(await stack.decisions(lost["id"])) == 2


async def moved_from(stack: Stack, first: dict[str, Any]) -> bool:
    """Does another resource than this row's have a turn that is held?"""
    frames = [e for e in stack.journal() if e["method"] == "WS" and not e["ended_at"]]
    return any(frame["key"] != key_of(first) for frame in frames)


async def reaped(stack: Stack) -> bool:
    return await stack.routing.reap(200) > 0


def key_of(row: dict[str, Any]) -> str:
    return list(KEYS)[int(row["resource_id"].removeprefix("openai-")) - 1]


class TestRestart:
    async def test_sigterm_lets_a_response_end_and_closes_with_1012(
        self, valkey: str, tmp_path: Path
    ) -> None:
        async with gateway_stack(valkey, tmp_path) as stack:
            await stack.fault(event_gap_ms=30)
            async with socket(stack) as busy, socket(stack) as idle:
                await ask(busy)
                await busy.recv()
                process = stack.gateway
                ending = asyncio.get_running_loop().run_in_executor(None, process.end)
                frames, code = await end_of(busy)
                assert await end_of(idle) == ([], 1012)
                assert (frames[-1]["type"], code) == ("response.completed", 1012)
            assert await ending == 0
            (row,) = await rows(stack, 1)
            assert row["outcome"] == "completed"

    async def test_sigterm_interrupts_what_does_not_end(
        self, valkey: str, tmp_path: Path
    ) -> None:
        settings = {"PROXY_DRAIN_SECONDS": "0.4"}
        async with gateway_stack(valkey, tmp_path, **settings) as stack:
            await stack.fault(stall_after=1)
            async with socket(stack) as opened:
                await ask(opened)
                await opened.recv()
                process = stack.gateway
                ending = asyncio.get_running_loop().run_in_executor(None, process.end)
                (error,), code = await end_of(opened)
            assert (error["status"], code) == (503, 1012)
            assert await ending == 0
            (row,) = await rows(stack, 1)
            assert row["outcome"] == "interrupted"


class TestTimes:
    async def test_an_answer_that_never_ends_is_given_up(
        self, valkey: str, tmp_path: Path
    ) -> None:
        settings = {"PROXY_REQUEST_TIMEOUT_SECONDS": "2"}
        async with gateway_stack(valkey, tmp_path, **settings) as stack:
            await stack.fault(stall_after=1)
            async with socket(stack) as opened:
                await ask(opened)
                (_, error), code = await end_of(opened)
            assert (error["status"], code) == (502, 1011)
            (row,) = await rows(stack, 1)
            assert row["outcome"] == "failed"


class TestWithoutRedis:
    async def test_a_socket_goes_on_and_the_ledger_catches_up(
        self, tmp_path: Path
    ) -> None:
        port = free_port()
        with running_valkey(tmp_path, port) as url:
            async with gateway_stack(url, tmp_path) as stack:
                async with socket(stack) as opened:
                    await stack.redis.shutdown(nosave=True)
                    await asked(opened)
                    await asked(opened)
                async with socket(stack) as opened:
                    await asked(opened)
                with running_valkey(tmp_path, port):
                    await stack.publish()
                    stored = await rows(stack, 3)
                    assert {row["outcome"] for row in stored} == {"completed"}
                    second = await stack.decisions(stored[1]["id"])
                    assert [d["reason"] for d in second] == ["socket"]
                    assert second[0]["degraded"] is True

    async def test_without_a_catalogue_an_upgrade_is_refused(
        self, valkey: str, tmp_path: Path
    ) -> None:
        port = free_port()
        env = {
            "PROXY_REDIS_URL": valkey,
            "PROXY_PORT": str(port),
            "PROXY_DATA_DIR": str(tmp_path),
        }
        command = service_command("gateway", env)
        process = Process(command, env, tmp_path / "gateway.log")
        url = f"127.0.0.1:{port}"
        with (
            running(process, f"http://{url}/healthz"),
            pytest.raises(InvalidStatus) as refused,
        ):
            await connect(f"ws://{url}/v1/responses", proxy=None)
        answered = refused.value.response
        assert answered.status_code == 503
        assert answered.headers["retry-after"] == "1"


async def _is(stack: Stack, in_flight: int) -> bool:
    return await stack.in_flight() == in_flight
