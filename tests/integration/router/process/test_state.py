"""What a router keeps in Redis, and what it tells of it."""

from contextlib import suppress
from time import monotonic

import pytest

from libs.common.contracts.catalogue import Catalogue
from libs.common.contracts.events import encode
from libs.common.errors import NoCatalogue
from libs.common.redis.keys import DEFAULT
from libs.common.upstream_answers.verdicts import Verdict
from services.router.admin.schemas import state as state_schemas
from tests.integration.router.process.running import (
    RESOURCES,
    Standing,
    acquired,
    states_of,
)
from tests.support.databases import function_keys
from tests.support.processes.waiting import eventually
from tests.support.values.telemetry import gateway_event

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestPublishing:
    @pytest.mark.alone
    async def test_four_resources_are_back_within_5_s_of_an_emptied_redis(
        self, proxy: Standing
    ) -> None:
        before = await proxy.routing.catalogue()
        await proxy.empty_redis()
        emptied_at = monotonic()

        async def back() -> Catalogue | None:
            kept = await proxy.redis.exists("{rpx}:catalogue")
            return await proxy.routing.catalogue() if kept else None

        async def routed() -> str | None:
            # If it published between the two flushes, the library is lost again.
            with suppress(NoCatalogue):
                return await acquired(proxy.routing, "req-a", "s")
            return None

        assert await eventually(back) == before
        assert await eventually(routed)
        assert monotonic() - emptied_at < 5

    async def test_a_lost_library_is_loaded_again(self, proxy: Standing) -> None:
        await proxy.redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]
        await eventually(proxy.whole)

    async def test_a_foreign_catalogue_is_replaced(self, proxy: Standing) -> None:
        await proxy.routing.publish(Catalogue(version="other", resources=()), "e1")
        await eventually(proxy.whole)

    async def test_a_registry_event_tells_of_it(self, proxy: Standing) -> None:
        assert (await proxy.told("registry"))[-1]["resources"] == RESOURCES


class TestReaping:
    async def test_a_silent_gateways_leases_end_and_no_others(
        self, proxy: Standing
    ) -> None:
        await acquired(proxy.routing, "req-lost", "s", gateway="gw-silent")
        await acquired(proxy.routing, "req-kept", "s", gateway="gw-beating")
        assert await proxy.routing.in_flight() == 2
        await proxy.routing.heartbeat("gw-beating")
        await proxy.routing.heartbeat("gw-silent")
        await proxy.redis.zincrby(function_keys.gateways(), -61_000, "gw-silent")

        async def gone() -> bool:
            return await proxy.routing.in_flight() == 1

        await eventually(gone)
        told = await proxy.told("request")
        assert [(e["id"], e["outcome"]) for e in told] == [("req-lost", "interrupted")]


class TestState:
    async def test_it_shows_what_is_going_on(self, proxy: Standing) -> None:
        taken = await acquired(proxy.routing, "req-now", "s")
        state = await proxy.state()
        state_schemas.AdminState.model_validate(state)
        in_flight = {r["id"]: r["in_flight"] for r in state["resources"]}
        assert in_flight == {id_: int(id_ == taken) for id_ in RESOURCES}
        # One registry event, one decision.
        assert state["queue_depth"] == 2
        assert state["ledger"] == {
            "accepted": 4,
            "stored": 3,
            "pending": 0,
            "in_flight": 1,
            "dead_lettered": 0,
            "balanced": True,
            "problems": [],
            "unverified": [],
        }
        assert [d["request_id"] for d in state["decisions"]] == [
            "req-2",
            "req-2",
            "req-1",
            "req-0",
        ]
        assert (state["admin"], state["degraded"]) == ("open", [])

    async def test_the_stream_follows_it(self, proxy: Standing) -> None:
        async with proxy.http.stream("GET", "/admin/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            states = states_of(answer)

            async def seen(in_flight: int) -> bool:
                return bool((await anext(states))["ledger"]["in_flight"] == in_flight)

            # The first state may be half a second old, of another test.
            await eventually(lambda: seen(0))
            await acquired(proxy.routing, "req-now", "s")
            await eventually(lambda: seen(1))

    async def test_changes_follow_the_first_state(self, proxy: Standing) -> None:
        async with proxy.http.stream("GET", "/admin/events?changes=true") as answer:
            states = states_of(answer)
            first = await anext(states)
            assert [len(first[name]) for name in ("resources", "requests")] == [4, 3]
            told = [each["subject"] for each in first["attention"]]
            assert told == ["health"]  # none runs here
            assert "candidates" not in first["decisions"][0]
            taken: list[str] = []

            async def seen() -> bool:
                """A client of another test may watch for another second: then this one
                may miss a tick, and gets the whole state."""
                id_ = f"req-{len(taken)}"
                taken.append(await acquired(proxy.routing, id_, "s"))
                changed = await anext(states)
                told = {r["id"] for r in changed.get("resources", ())}
                return len(changed) < len(first) and bool(told) and told <= {*taken}

            await eventually(seen)


class TestAttention:
    async def test_a_sick_resource_and_a_gateways_disk(self, proxy: Standing) -> None:
        refused = Verdict(kind="refused", cause="401")
        await proxy.routing.verdict("openai-2", refused)
        books = gateway_event("gw-1", accepted=0, ended=0)

        async def told() -> bool:
            await proxy.routing.heartbeat("gw-1", encode(books))
            await proxy.redis.set(DEFAULT.impaired("gw-1"), "journal", px=5_000)
            found = (await proxy.http.get("/admin/attention")).json()["data"]
            return [(each["kind"], each["subject"]) for each in found] == [
                ("degraded", "health"),  # none runs here
                ("degraded", "journal of gateway gw-1"),
                ("resource_unhealthy", "openai-2"),
            ]

        await eventually(told)


class TestCharts:
    async def test_nothing_happened_lately(self, proxy: Standing) -> None:
        for window, count in (("hour", 60), ("day", 96), ("week", 168)):
            answer = await proxy.http.get(f"/admin/charts?window={window}&team_id=t")
            chart = answer.json()
            assert chart["series"]["requests"] == [0] * count
            assert chart["series"]["latency_p50_ms"] == [None] * count


class TestLedger:
    async def test_it_adds_up_for_each_gateway_and_in_sum(
        self, proxy: Standing
    ) -> None:
        books = gateway_event("gw-1", accepted=6, ended=5, held=5)
        report = encode(books)
        await proxy.routing.heartbeat("gw-1", report)
        ledger = await proxy.ledger()
        state_schemas.WholeLedger.model_validate(ledger)
        told = {k: ledger[k] for k in ("accepted", "stored", "pending", "in_flight")}
        assert told == {"accepted": 9, "stored": 3, "pending": 5, "in_flight": 1}
        assert (ledger["balanced"], ledger["problems"]) == (True, [])
        gateway = {g["id"]: g for g in ledger["gateways"]}["gw-1"]
        assert (gateway["state"], gateway["held"]) == ("running", 5)

    async def test_a_request_that_was_stored_and_is_gone_is_told(
        self, proxy: Standing
    ) -> None:
        books = gateway_event("gw-2", accepted=5, ended=5, held=4)
        await proxy.routing.heartbeat("gw-2", encode(books))
        ledger = await proxy.ledger()
        assert ledger["balanced"] is False
        assert ledger["problems"] == ["gw-2: 1 stored requests are gone"]
        assert (await proxy.state())["ledger"]["balanced"] is False
