"""The routing functions on a real server: leases, choice, affinity, health."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.catalogue import Catalogue, HealthState, Resource
from libs.common.contracts.verdicts import Verdict
from libs.common.errors import NoCatalogue
from libs.common.redis import keys
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import (
    Ask,
    Decision,
    NoCapacity,
    NoResources,
    OwnerGone,
    OwnerLimited,
    Release,
    UnknownPool,
    digest,
)
from services.router.function_library import LIBRARY

STREAM = "telemetry:events"
OK = Verdict(kind="ok", latency_ms=1.5)
FAULT = Verdict(kind="fault", cause="500")
LIMITED = Verdict(kind="limited", cause="429 rate limited", cooldown_ms=5_000)
REFUSED = Verdict(kind="refused", cause="401 invalid_api_key")
NEUTRAL = Verdict(kind="neutral")

pytestmark = pytest.mark.asyncio


def resource(number: int, account: str = "", weight: float = 1, pool: str = "p"):  # type: ignore[no-untyped-def]
    return Resource(
        id=f"openai-{number}",
        name=f"openai-{number}",
        pool_id=pool,
        account_id=account or f"account-{number}",
        weight=weight,
        base_url="http://127.0.0.1:1/v1",
        credential=f"env:OPENAI_API_KEY_{number}",
    )


@dataclass
class Desk:
    """Acquires and releases as a gateway does, with its own clock."""

    redis: Any
    shared: SharedConnection
    now: int = 1_760_000_000_000
    asked: int = 0
    draw: int = 0
    decisions: dict[str, Decision] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.routing = RoutingFunctions(
            self.shared, STREAM, Terms(cooldown_ms=1_000), LIBRARY, lambda: self.now
        )

    async def publish(self, *resources: Resource, version: str = "v1") -> bool:
        return await self.routing.publish(
            Catalogue(version=version, resources=resources), "event"
        )

    async def acquire(self, request: str = "", **over: Any) -> Decision:
        self.asked += 1
        request = request or f"r{self.asked}"
        before = self.decisions.get(request)
        ask: dict[str, Any] = {
            "request_id": request,
            "decision_id": f"d{self.asked}",
            "attempt": 1,
            "gateway_id": "gw",
            "pool_id": None,
            "session_id": None,
            "model": "",
            "bound": (),
            "account_bound": False,
            "tried": (),
            "previous": before.resource_id if before else "",
            "resolved": True,
            "lease": b'{"id":"%b","model":"m"' % request.encode(),
            "draw": self.draw,
        } | over
        session = ask["session_id"]
        ask["session"] = digest(session) if session else ""
        decision = await self.routing.acquire(Ask(**ask))
        self.decisions[request] = decision
        return decision

    async def release(
        self, request: str, verdict: Verdict = OK, *, over: bool = True, **more: Any
    ) -> None:
        given = {"learned": (), "gateway_id": "gw", "model": None} | more
        session = given.pop("session_id", None)
        given["session"] = digest(session) if session else ""
        await self.routing.release(
            Release(
                request_id=request,
                resource_id=self.decisions[request].resource_id,
                verdict=verdict,
                event=b'{"id":"x"}' if over else None,
                **given,
            )
        )

    async def serve(self, verdict: Verdict = OK, **over: Any) -> str:
        """One request from acquire to release; returns its resource."""
        decision = await self.acquire(**over)
        await self.release(f"r{self.asked}", verdict)
        return decision.resource_id

    async def in_flight(self) -> dict[str, int]:
        return {s.id: s.in_flight for s in await self.routing.states()}

    async def health(self, resource_id: str) -> HealthState:
        states = {s.id: s.health for s in await self.routing.states()}
        return states[resource_id]

    async def events(self, kind: str) -> list[dict[str, Any]]:
        entries = await self.redis.xrange(STREAM)
        return [
            json.loads(fields[b"data"])
            for _, fields in entries
            if fields[b"kind"] == kind.encode()
        ]


@pytest_asyncio.fixture
async def desk(valkey: str) -> AsyncIterator[Desk]:
    redis = connect(valkey)
    shared = SharedConnection(connect(valkey))
    await shared.open()
    desk = Desk(redis, shared)
    await desk.routing.load_library()
    yield desk
    await shared.close()
    await redis.aclose()


async def test_without_a_catalogue_there_is_no_choice(desk: Desk) -> None:
    with pytest.raises(NoCatalogue):
        await desk.acquire()
    await desk.publish()
    with pytest.raises(NoResources):
        await desk.acquire()


async def test_without_a_library_there_is_no_choice(desk: Desk) -> None:
    await desk.redis.execute_command("FUNCTION", "FLUSH")
    with pytest.raises(NoCatalogue):
        await desk.acquire()


async def test_held_requests_spread_by_weight_and_all_leases_end(desk: Desk) -> None:
    await desk.publish(resource(1, weight=2), resource(2), resource(3), resource(4))
    for n in range(100):
        desk.draw = n * 7919
        await desk.acquire(f"h{n}")
    expected = {"openai-1": 40, "openai-2": 20, "openai-3": 20, "openai-4": 20}
    assert await desk.in_flight() == expected
    for n in range(100):
        await desk.release(f"h{n}")
        await desk.release(f"h{n}")  # a second release changes nothing
    assert set((await desk.in_flight()).values()) == {0}


async def test_ties_fall_to_the_draw(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2), resource(3))
    chosen = Counter()  # type: ignore[var-annotated]
    for n in range(30):
        desk.draw = n
        chosen[await desk.serve()] += 1
    assert chosen == {"openai-1": 10, "openai-2": 10, "openai-3": 10}


async def test_asking_again_moves_the_lease(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    first = await desk.acquire("a")
    second = await desk.acquire("a", attempt=2, tried=(first.resource_id,))
    assert second.resource_id != first.resource_id
    assert sum((await desk.in_flight()).values()) == 1
    await desk.release("a")
    assert sum((await desk.in_flight()).values()) == 0


async def test_a_pool_is_kept_and_an_unknown_one_named(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2, pool="q"))
    assert {await desk.serve(pool_id="q") for _ in range(5)} == {"openai-2"}
    with pytest.raises(UnknownPool) as unknown:
        await desk.acquire(pool_id="nope")
    assert unknown.value.pools == ("p", "q")


async def test_a_session_stays_once_it_succeeded(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    first = await desk.acquire("a", session_id="s")
    await desk.release("a", NEUTRAL, session_id="s")
    assert await desk.routing.affinity_count() == 0  # an aborted request binds nothing
    await desk.acquire("b", session_id="s")
    await desk.release("b", session_id="s")
    home = desk.decisions["b"].resource_id
    for n in range(5):
        decision = await desk.acquire(f"c{n}", session_id="s")
        assert (decision.resource_id, decision.reason) == (home, "session_affinity")
    assert first.reason == "weighted_least_connections"


async def test_a_session_without_bound_state_moves_and_is_rebound(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    await desk.acquire("a", session_id="s")
    await desk.release("a", session_id="s")
    home = desk.decisions["a"].resource_id
    await desk.serve(LIMITED, session_id="s")
    moved = await desk.acquire("b", session_id="s")
    assert (moved.reason, moved.resource_id == home) == ("session_failover", False)
    await desk.release("b", session_id="s")
    assert (await desk.acquire("c", session_id="s")).reason == "session_affinity"


async def test_a_minted_id_leads_home(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2), resource(3))
    await desk.acquire("a")
    await desk.release("a", learned=(digest("resp_1"),))
    home = desk.decisions["a"].resource_id
    for n in range(6):
        found = await desk.acquire(f"b{n}", bound=(digest("?"), digest("resp_1")))
        assert (found.resource_id, found.reason) == (home, "response_affinity")


@pytest.mark.parametrize(
    ("cause", "verdict", "over"),
    [
        ("cooling_down", LIMITED, {}),
        ("unhealthy", REFUSED, {}),
        ("another_pool", None, {"pool_id": "q"}),
        ("gone", None, {}),
    ],
)
async def test_a_first_decision_says_why_a_home_is_passed_over(
    desk: Desk, cause: str, verdict: Verdict | None, over: dict[str, str]
) -> None:
    home, *others = resource(1, weight=9), resource(2), resource(3, pool="q")
    await desk.publish(home, *others)
    bound = {"bound": (digest("resp_1"),)} if cause != "another_pool" else {}
    await desk.acquire("a", session_id="s")
    await desk.release("a", session_id="s", learned=(digest("resp_1"),))
    if verdict is not None:
        await desk.routing.verdict(home.id, verdict)
    if cause == "gone":
        sibling = resource(4, account=home.account_id)
        await desk.publish(*others, sibling, version="v2")
    for asked in ({"session_id": "s"}, bound):
        with suppress(OwnerGone, OwnerLimited):
            await desk.acquire(**asked, **over)
        *_, event = await desk.events("decision")
        assert event.get("cause") == (cause if asked else None)
    # On a later attempt the gateway has newer knowledge.
    await desk.acquire(session_id="s", attempt=2, cause="timeout", **over)
    *_, event = await desk.events("decision")
    assert event["cause"] == "timeout"


class TestAccountBound:
    async def bound(self, desk: Desk) -> tuple[str, ...]:
        """An id minted by openai-1."""
        await desk.acquire("home", tried=("openai-2", "openai-3"))
        await desk.release("home", learned=(digest("resp_1"),), session_id="s")
        return (digest("resp_1"),)

    async def test_fails_over_to_a_sibling_only(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"), resource(3, "a"))
        bound = await self.bound(desk)
        await desk.acquire("x", bound=bound)
        await desk.release("x", LIMITED)
        for n in range(4):
            found = await desk.acquire(f"y{n}", bound=bound)
            assert found.resource_id == "openai-3"

    async def test_a_limited_owner_without_sibling_is_waited_for(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        bound = await self.bound(desk)
        await desk.acquire("x", bound=bound)
        await desk.release("x", LIMITED)
        with pytest.raises(OwnerLimited) as limited:
            await desk.acquire("y", bound=bound)
        assert limited.value.retry_after_ms == 5_000

    async def test_a_failing_owner_without_sibling_is_tried_anyway(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        bound = await self.bound(desk)
        for n in range(3):
            await desk.acquire(f"x{n}", bound=bound)
            await desk.release(f"x{n}", FAULT)
        assert await desk.health("openai-1") == "degraded"
        assert (await desk.acquire("y", bound=bound)).resource_id == "openai-1"

    async def test_a_refused_owner_without_sibling_is_gone(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        bound = await self.bound(desk)
        await desk.acquire("x", bound=bound)
        await desk.release("x", REFUSED)
        with pytest.raises(OwnerGone):
            await desk.acquire("y", bound=bound)

    async def test_encrypted_content_binds_the_session(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        await self.bound(desk)
        await desk.acquire("x", session_id="s", account_bound=True)
        await desk.release("x", REFUSED)
        with pytest.raises(OwnerGone):
            await desk.acquire("y", session_id="s", account_bound=True)
        # The same session without bound state moves freely.
        assert (await desk.acquire("z", session_id="s")).reason == "session_failover"

    async def test_a_sibling_whose_pause_is_over_is_tried(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"), resource(3, "a"))
        bound = await self.bound(desk)
        await desk.routing.verdict("openai-1", REFUSED)
        await desk.routing.verdict("openai-3", LIMITED)
        with pytest.raises(OwnerLimited):
            await desk.acquire("x", bound=bound)
        desk.now += 5_001
        assert (await desk.acquire("y", bound=bound)).resource_id == "openai-3"

    async def test_also_when_the_owner_left_the_catalogue(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"), resource(3, "a"))
        bound = await self.bound(desk)
        await desk.publish(resource(2, "b"), resource(3, "a"), version="v2")
        assert (await desk.acquire("x", bound=bound)).resource_id == "openai-3"


class TestHealth:
    async def test_three_faults_in_a_row_open_the_circuit(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        for verdict, expected in [
            (FAULT, "unknown"),
            (FAULT, "unknown"),
            (OK, "healthy"),
            (FAULT, "healthy"),
            (NEUTRAL, "healthy"),
            (FAULT, "healthy"),
            (FAULT, "degraded"),
        ]:
            await desk.serve(verdict)
            assert await desk.health("openai-1") == expected

    async def test_panic_takes_the_one_that_is_back_first(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        await desk.serve(LIMITED)
        await desk.serve(Verdict(kind="limited", cause="429", cooldown_ms=100))
        decision = await desk.acquire()
        assert (decision.reason, decision.resource_id) == ("panic", "openai-2")

    async def test_no_capacity_when_every_key_is_refused(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        await desk.serve(REFUSED)
        with pytest.raises(NoCapacity):
            await desk.acquire()
        assert (await desk.events("decision"))[-1]["resource_id"] is None

    async def test_half_open_lets_one_through_then_all(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        first = await desk.serve(LIMITED)
        desk.now += 5_001
        await desk.acquire("trial")
        assert desk.decisions["trial"].resource_id == first
        others = {await desk.serve() for _ in range(4)}
        assert first not in others
        await desk.release("trial", OK)
        assert await desk.health(first) == "healthy"
        assert first in {await desk.serve() for _ in range(2)}

    async def test_a_failed_trial_doubles_the_pause(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        failing = await desk.serve(LIMITED)
        desk.now += 5_001
        assert await desk.serve(FAULT) == failing
        desk.now += 1_999
        assert failing not in {await desk.serve() for _ in range(3)}
        desk.now += 2
        assert await desk.serve() == failing

    async def test_failing_during_a_pause_does_not_double_it(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        failing = await desk.serve(LIMITED)
        for _ in range(3):
            await desk.routing.verdict(failing, LIMITED)
        desk.now += 5_001
        assert await desk.serve() == failing

    async def test_a_trial_that_began_well_frees_the_resource(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        limited = await desk.serve(LIMITED)
        desk.now += 5_001
        trial = await desk.acquire("trial")
        assert (trial.resource_id, trial.trial) == (limited, True)
        await desk.release("trial", OK, over=False)
        assert await desk.health(limited) == "healthy"
        assert sum((await desk.in_flight()).values()) == 1

    async def test_a_trial_whose_client_left_before_knowing_is_repeated(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1), resource(2))
        limited = await desk.serve(LIMITED)
        desk.now += 5_001
        await desk.acquire("trial")
        desk.decisions["trial"] = Decision("", "", "")
        await desk.release("trial", NEUTRAL)
        assert (await desk.acquire("next")).resource_id == limited

    async def test_a_trial_that_says_nothing_is_repeated(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        limited = await desk.serve(LIMITED)
        desk.now += 5_001
        assert await desk.serve(NEUTRAL) == limited
        assert await desk.serve() == limited

    async def test_a_refused_key_comes_back_by_a_probe_only(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        await desk.acquire("early")
        refused = desk.decisions["early"].resource_id
        await desk.routing.verdict(refused, REFUSED)
        await desk.release("early", OK)  # was in progress before
        assert await desk.health(refused) == "unhealthy"
        assert await desk.routing.verdict(refused, OK) == "healthy"
        transitions = [(e["before"], e["after"]) for e in await desk.events("health")]
        assert transitions == [("unknown", "unhealthy"), ("unhealthy", "healthy")]

    async def test_pauses_merge_by_the_later_end(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        await desk.acquire("a")
        await desk.acquire("b")
        await desk.release("a", LIMITED)
        await desk.release("b", Verdict(kind="limited", cause="429", cooldown_ms=10))
        desk.now += 4_999
        assert (await desk.acquire()).reason == "panic"

    async def test_a_new_key_starts_with_a_clean_record(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        await desk.routing.verdict("openai-1", REFUSED)
        renewed = resource(1).model_copy(update={"credential": "env:OTHER"})
        await desk.publish(renewed, resource(2), version="v2")
        assert await desk.health("openai-1") == "unknown"


class TestReaping:
    async def test_a_silent_gateway_loses_its_leases(self, desk: Desk) -> None:
        await desk.publish(resource(1, "acct"))
        await desk.routing.heartbeat("gw")
        await desk.acquire("a")
        await desk.acquire("b", gateway_id="other")
        desk.now += 5_000
        await desk.routing.heartbeat("other")
        assert await desk.routing.reap(4_000) == 1
        assert await desk.in_flight() == {"openai-1": 1}
        (event,) = await desk.events("request")
        assert event == {
            "id": "a",
            "model": "m",
            "attempts": 1,
            "resource_id": "openai-1",
            "account_id": "acct",
            "completed_at_ms": desk.now,
            "outcome": "interrupted",
            "error_code": "gateway_lost",
            "error_message": "The gateway that served this request stopped answering.",
        }
        assert await desk.routing.reap(4_000) == 0

    async def test_a_gateway_reaped_while_paused_is_watched_again(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1))
        await desk.routing.heartbeat("gw")
        desk.now += 5_000
        await desk.routing.reap(4_000)
        await desk.acquire("a")  # no heartbeat since
        assert await desk.routing.reap(4_000, strays=True) == 0
        desk.now += 5_000
        assert await desk.routing.reap(4_000) == 1

    async def test_leases_nobody_knows_can_be_dropped(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        await desk.acquire("a")
        await desk.acquire("b")
        assert set(await desk.routing.held("gw")) == {"a", "b"}
        assert await desk.routing.abandon("gw", ["a", "unknown"]) == 1
        assert await desk.in_flight() == {"openai-1": 1}
        assert await desk.events("request") == []


async def test_publishing_the_same_version_does_nothing(desk: Desk) -> None:
    assert await desk.publish(resource(1))
    assert not await desk.publish(resource(1))
    assert len(await desk.events("registry")) == 1


async def test_a_new_catalogue_keeps_leases_and_weighs_anew(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    await desk.acquire("a")
    busy = desk.decisions["a"].resource_id
    await desk.publish(resource(1), resource(2), resource(3), version="v2")
    assert (await desk.in_flight())[busy] == 1
    assert busy not in {await desk.serve() for _ in range(4)}


async def test_a_decision_explains_itself(desk: Desk) -> None:
    await desk.publish(resource(1, weight=2), resource(2), resource(3))
    await desk.routing.verdict("openai-2", REFUSED)
    await desk.routing.verdict("openai-3", Verdict(kind="limited", cooldown_ms=60_000))
    await desk.acquire("a", session_id='s"\u00e9')
    (decision,) = await desk.events("decision")
    assert decision == {
        "request_id": "a",
        "attempt": 1,
        "session_id": 's"\u00e9',
        "pool_id": None,
        "created_at_ms": desk.now,
        "resource_id": "openai-1",
        "reason": "weighted_least_connections",
        "candidates": [
            {
                "resource": "openai-1",
                "score": 0.5,
                "in_flight": 0,
                "weight": 2,
                "health": "unknown",
            },
            {
                "resource": "openai-3",
                "weight": 1,
                "health": "degraded",
                "refused": f"cooling down until {desk.now + 60_000}",
            },
            {
                "resource": "openai-2",
                "weight": 1,
                "health": "unhealthy",
                "refused": "key refused by the upstream",
            },
        ],
    }


async def test_no_key_lives_outside_the_hash_tag(desk: Desk) -> None:
    await desk.publish(resource(1))
    await desk.acquire("a", session_id="s" * 10_000)
    await desk.release("a", session_id="s" * 10_000, learned=(digest("\x00" * 999),))
    names = {name.decode() for name in await desk.redis.keys("*")}
    assert all(n == STREAM or n.startswith(keys.TAG) for n in names)
    assert max(map(len, names)) < 80
