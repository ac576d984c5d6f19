"""Sockets whose upstream key cannot serve any more: which key serves the turn, and what
the client gets."""

from pathlib import Path
from typing import Any

import pytest

from libs.common.contracts.catalogue import Catalogue
from libs.common.upstream_answers.verdicts import Verdict
from tests.support.clients.response_sockets import (
    ask,
    asked,
    key_of,
    refusal,
    rows,
    socket,
    upgrades_are_over,
)
from tests.support.processes.stack import KEYS, Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


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
        assert moved.get("error_code") is None
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

    @pytest.mark.parametrize(
        ("death", "status"), [("500", 500), ("429", 429), ("reset", 502)]
    )
    async def test_a_dead_key_is_not_told_after_an_error_that_passes(
        self, stack: Stack, death: str, status: int
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            (first,) = await rows(stack, 1)
            for key in KEYS:
                fault = DEATHS[death if key == key_of(first) else "401"]
                await stack.fault(times=None, key=key, **fault)
            (error,) = await asked(opened)
            assert (error["type"], error["status"]) == ("error", status)
            limited = status == 429
            assert ("retry-after" in error.get("headers", {})) is limited
        _, failed = await rows(stack, 2)
        assert (failed["outcome"], failed["status_code"]) == ("failed", status)
        assert failed["error_code"] == error["error"]["code"]
        assert failed["attempts"] > 1
        causes = {d.get("cause") for d in await stack.decisions(failed["id"])}
        assert "key_refused" in causes

    async def test_an_upgrade_is_refused_with_the_error_that_passes(
        self, stack: Stack
    ) -> None:
        busy, *dead = KEYS
        await stack.fault(times=None, key=busy, ws_refuse=503)
        for key in dead:
            await stack.fault(times=None, key=key, **DEATHS["401"])
        status, _, error = await refusal(stack)
        (row,) = await rows(stack, 1)
        causes = {d.get("cause") for d in await stack.decisions(row["id"])}
        assert {"key_refused", "server_error"} <= causes
        assert (status, row["status_code"]) == (503, 503)
        assert error["code"] == row.get("error_code")

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
