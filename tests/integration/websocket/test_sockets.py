"""`WS /v1/responses` through a gateway process: upgrades and turns, what the upstream
gets, and what the ledger records for each frame."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.resources.responses.responses import AsyncResponsesConnection
from websockets.exceptions import InvalidStatus

from tests.support.clients.response_sockets import (
    ENDS,
    MODEL,
    answer,
    ask,
    asked,
    key_of,
    refusal,
    rows,
    socket,
    upgrades_are_over,
)
from tests.support.processes.stack import KEYS, Stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=stack.url, api_key="client-secret", max_retries=0
    ) as client:
        yield client


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
        ("fault", "status", "attempts", "decisions"),
        [
            ({"ws_refuse": 426}, 426, 1, 1),
            ({"ws_refuse": 404}, 404, 1, 1),
            # Dead keys do not count: all four, then there is no other.
            ({"revoked": True}, 401, 4, 5),
            ({"ws_refuse": 503}, 503, 3, 3),
            ({"ws_refuse": 429}, 429, 3, 3),
        ],
    )
    async def test_a_refusal_is_passed_on(
        self,
        stack: Stack,
        fault: dict[str, Any],
        status: int,
        attempts: int,
        decisions: int,
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
        assert len(await stack.decisions(row["id"])) == decisions

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


async def _is(stack: Stack, in_flight: int) -> bool:
    return await stack.in_flight() == in_flight
