"""Budgets and limits per minute as Redis counts them: once, in the window of each
request, and summed anew when what was spent is in doubt."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import Catalogue
from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.contracts.verdicts import Verdict
from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.budgets import (
    KNOWN,
    LEFT,
    RECOUNTING,
    UNKNOWN,
    Quota,
    State,
    quota_at,
    refusal,
    spent_of,
)
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import (
    BudgetReserved,
    BudgetSpent,
    Decision,
    KeyLimited,
    LimitsUnknown,
    NoCapacity,
    QuotaRefused,
    SpendUnknown,
)
from services.router.function_library import LIBRARY
from tests.support.databases.valkey import empty
from tests.support.memory.twin import resource
from tests.support.values.asks import made_ask, made_release

T0 = 1_800_000_000_000
DAY = 86_400_000
STREAM = "telemetry:events"
KEY, TEAM = "key:k", "team:t"

pytestmark = pytest.mark.asyncio
REFUSALS: dict[type[QuotaRefused], str] = {
    BudgetSpent: "budget_spent",
    BudgetReserved: "budget_reserved",
    SpendUnknown: "spend_unknown",
}


class Scene:
    """One key, with a clock of its own."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.now = T0
        self.routing = RoutingFunctions(
            ClientCaller(redis), STREAM, Terms(), LIBRARY, lambda: self.now
        )
        self.number = self.subjects = 0
        self.named = True  # releases name limits by their id

    async def start(self) -> None:
        await self.routing.load_library()
        catalogue = Catalogue(version="v1", resources=(resource("a1"),))
        await self.routing.publish(catalogue, "event")

    def quota(self, *budgets: Budget, rpm: int | None = None) -> Quota:
        return quota_at("k", rpm, None, budgets, self.now)

    async def acquire(self, quota: Quota, may_use: str = "0", **ask: Any) -> Decision:
        self.number += 1
        made = made_ask(f"r{self.number}", quota=quota, may_use=may_use, **ask)
        try:
            return await self.routing.acquire(made)
        except LimitsUnknown:
            told = msgspec.structs.replace(made, tells=True)
            return await self.routing.acquire(told)

    async def refused(self, quota: Quota, may_use: str) -> str | None:
        """Why a request is refused, or None."""
        try:
            await self.acquire(quota, may_use)
        except QuotaRefused as refused:
            return REFUSALS[type(refused)]
        return None

    async def release(
        self, quota: Quota, tokens: int, nanos: int = 0, number: int | None = None
    ) -> None:
        request = f"r{number or self.number}"
        event = event_of(request, self.now, tokens, nanos)
        given: dict[str, Any] = {"quota": quota, "tokens": tokens, "nanos": nanos}
        if not self.named:
            # Those of a 429 of the account have no place for the id.
            given["verdict"] = Verdict(kind="neutral", of_account=True)
        await self.routing.release(made_release("a1", request, event=event, **given))

    async def resend(self, request: str, tokens: int) -> None:
        event = event_of(request, self.now, tokens, 0)
        args = "rpx_resend_v1", 2, "{rpx}:catalogue:version", STREAM
        await self.redis.execute_command("FCALL", *args, "request", request, event)

    async def summed(self, tokens: int = 0, nanos: int = 0) -> None:
        """The router sums everything, of which SQL has this much."""
        for recount in (await self.routing.recounts())[1]:
            assert await self.routing.recounted(recount, tokens, nanos)

    async def spent(self, subject: str = KEY) -> tuple[int, int, int]:
        (spend,) = await self.routing.spend(subject)
        assert spend is not None
        return spend.tokens, spend.reserved, spend.sure

    async def told(self, kind: str) -> list[dict[str, Any]]:
        entries = await self.redis.xrange(STREAM)
        return [
            json.loads(e[b"data"]) for _, e in entries if e[b"kind"] == kind.encode()
        ]


def event_of(request: str, at_ms: int, tokens: int, nanos: int) -> bytes:
    fields = {"id": request, "created_at_ms": at_ms, "proxy_key_id": "k"}
    fields |= {"team_id": "t", "total_tokens": tokens, "cost_nanos": nanos}
    return json.dumps(fields).encode()


@pytest_asyncio.fixture
async def scene(valkey: str) -> AsyncIterator[Scene]:
    empty(valkey)
    async with connect(valkey) as client:
        made = Scene(client)
        await made.start()
        yield made


def budget(subject: str = KEY, **terms: Any) -> Budget:
    return Budget(subject, **{"window": "day", **terms})


async def test_a_budget_is_spent_by_what_responses_used(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, nanos=5_000))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    assert await scene.spent() == (0, 0, UNKNOWN)
    await scene.summed()
    decision = await scene.acquire(quota)
    assert spent_of(decision.left, 1) == [(0, 0)]
    await scene.release(quota, 60, 4_000)
    assert spent_of((await scene.acquire(quota)).left, 1) == [(60, 4_000)]
    await scene.release(quota, 39, 1_001)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert (refused.value.subject, refused.value.which) == (KEY, "usd")
    await scene.release(quota, 1, 0, number=99)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert refused.value.which == "tokens"
    assert await scene.spent() == (100, 0, KNOWN)


async def test_both_the_key_and_its_team_must_allow(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100), budget(TEAM, tokens=10, window="total"))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.acquire(quota)
    await scene.release(quota, 10)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert refused.value.subject == TEAM
    (spend,) = await scene.routing.spend(TEAM)
    assert spend is not None
    assert (spend.window_start_ms, spend.window_end_ms) == (0, END_OF_TIME_MS)


async def test_the_next_window_begins_with_nothing(scene: Scene) -> None:
    before = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(before)
    await scene.summed()
    await scene.acquire(before)
    running = scene.number
    await scene.acquire(before)
    await scene.release(before, 10)
    scene.now += DAY
    after = scene.quota(budget(tokens=10))
    await scene.acquire(after)
    assert await scene.spent() == (0, 0, KNOWN)
    await scene.release(after, 3)
    # Accepted in the window before: it belongs to that one.
    await scene.release(before, 8, number=running)
    assert await scene.spent() == (3, 0, KNOWN)


async def test_a_window_of_another_kind_is_summed_anew(scene: Scene) -> None:
    day = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(day)
    await scene.summed()
    week = scene.quota(budget(tokens=10, window="week"))
    with pytest.raises(SpendUnknown):
        await scene.acquire(week)
    await scene.summed(tokens=10)
    with pytest.raises(BudgetSpent):
        await scene.acquire(week)


async def test_what_is_sent_again_counts_once(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.acquire(quota)
    await scene.release(quota, 20)
    await scene.resend("r2", 20)  # the release was counted, but its reply was lost
    await scene.resend("r9", 5)  # Redis was away when it ended
    assert await scene.spent() == (20, 0, RECOUNTING)
    await scene.acquire(quota)  # at least that much is known
    await scene.release(quota, 7)
    _, (recount,) = await scene.routing.recounts()
    # The stream has all of them, SQL r2 and one that Redis knows nothing of.
    noted = await scene.routing.note_events(recount, [("r2", 20, 0), ("r8", 1, 0)])
    assert noted == {"r2", "r3", "r8", "r9"}
    assert await scene.routing.recounted(recount, 1_000, 0)
    assert await scene.spent() == (1_000 + 20 + 5 + 7 + 1, 0, KNOWN)
    assert (await scene.routing.recounts())[1] == []
    assert not await scene.routing.recounted(recount, 5, 0)
    assert await scene.routing.note_events(recount) is None


async def test_an_older_sum_is_not_taken(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    _, (older,) = await scene.routing.recounts()
    await scene.summed()
    await scene.resend("r9", 5)
    _, (newer,) = await scene.routing.recounts()
    assert older.since != newer.since
    assert not await scene.routing.recounted(older, 0, 0)
    assert await scene.routing.recounted(newer, 0, 0)
    assert await scene.spent() == (5, 0, KNOWN)


async def test_reservations_leave_no_overshoot(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    await scene.acquire(quota, "40")
    first = scene.number
    await scene.acquire(quota, "60")
    assert await scene.spent() == (0, 100, KNOWN)
    with pytest.raises(BudgetReserved):
        await scene.acquire(quota, "1")
    await scene.release(quota, 30, number=first)
    assert await scene.spent() == (30, 60, KNOWN)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota, "71")
    assert (refused.value.which, refused.value.left) == ("rest", 70)
    await scene.acquire(quota, "10")


async def test_reservations_of_crashed_gateways_end(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    await scene.acquire(quota, "40")
    await scene.acquire(quota, "50")
    await scene.routing.reap(1_000)
    assert await scene.spent() == (0, 90, KNOWN)
    await scene.routing.abandon("gw", ["r2"])
    await scene.routing.reap(1_000)
    assert await scene.spent() == (0, 50, KNOWN)


async def test_reservations_are_restored(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    for _ in range(2):  # repeated, it changes nothing
        await scene.routing.reserve("gw", quota.text, [("r1", 60), ("r2", 10)])
    await scene.summed(tokens=20)
    with pytest.raises(BudgetReserved):
        await scene.acquire(quota, "11")
    await scene.acquire(quota, "10")
    assert await scene.spent() == (20, 80, KNOWN)


async def test_thresholds_are_told_once_in_a_window(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, soft_percent=50))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    for number, tokens in enumerate((49, 1, 10, 40, 5)):
        await scene.release(quota, tokens, number=number + 1)
    told = [(event["state"], event["tokens"]) for event in await scene.told("budget")]
    assert told == [("soft", 50), ("exhausted", 100)]


async def test_a_lowered_budget_is_told_when_it_refuses(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed(tokens=50)
    lowered = scene.quota(budget(tokens=50))
    for _ in range(2):
        with pytest.raises(BudgetSpent):
            await scene.acquire(lowered)
    (told,) = await scene.told("budget")
    assert (told["state"], told["limit_tokens"]) == ("exhausted", 50)
    await scene.acquire(quota)


async def test_a_threshold_that_a_sum_has_passed_is_told_by_the_next_request(
    scene: Scene,
) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed(tokens=85)
    for _ in range(2):
        await scene.acquire(quota)
        await scene.release(quota, 1)
    (told,) = await scene.told("budget")
    assert (told["state"], told["tokens"]) == ("soft", 86)


async def test_an_unknown_spend_can_be_overruled(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.acquire(quota, "-0")
    await scene.release(quota, 100)
    with pytest.raises(BudgetSpent):
        await scene.acquire(quota, "-0")


async def test_requests_of_a_minute(scene: Scene) -> None:
    quota = scene.quota(rpm=2)
    assert LEFT[0].unpack_from((await scene.acquire(quota)).left) == (1, 0)
    # What gets no lease does not count.
    with pytest.raises(NoCapacity):
        await scene.acquire(quota, tried=("a1",))
    await scene.acquire(quota)
    with pytest.raises(KeyLimited) as refused:
        await scene.acquire(quota)
    assert refused.value.which == "requests"
    assert 60_000 < refused.value.wait_ms <= 65_000
    scene.now += refused.value.wait_ms
    await scene.acquire(quota)


async def test_what_is_sent_again_may_be_of_the_next_window(scene: Scene) -> None:
    before = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(before)
    await scene.summed()
    scene.now += DAY
    await scene.resend("r9", 5)  # Redis was away at midnight
    with pytest.raises(SpendUnknown):
        await scene.acquire(scene.quota(budget(tokens=10)))


async def test_a_changed_window_under_a_running_request(scene: Scene) -> None:
    day, week = (
        scene.quota(budget(tokens=10)),
        scene.quota(budget(window="week", tokens=9)),
    )
    with pytest.raises(SpendUnknown):
        await scene.acquire(day)
    await scene.summed()
    await scene.acquire(day)
    running = scene.number
    with pytest.raises(SpendUnknown):
        await scene.acquire(week)
    await scene.summed()
    await scene.release(day, 3, number=running)
    assert await scene.spent() == (0, 0, RECOUNTING)  # the router finds its event


async def test_another_server_is_in_doubt(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.routing.doubt()
    assert await scene.spent() == (0, 0, RECOUNTING)
    await scene.acquire(quota)


async def test_a_new_library_sums_anew_and_keeps_reservations(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True), rpm=5)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    await scene.acquire(quota, "40")
    await scene.redis.execute_command("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    assert await scene.spent() == (0, 40, UNKNOWN)
    await scene.summed(tokens=30)
    with pytest.raises(BudgetReserved):
        await scene.acquire(quota, "40")
    # The counts of the minute were written.
    assert LEFT[1].unpack_from((await scene.acquire(quota, "30")).left) == (2, 0, 30, 0)


async def test_redis_is_told_limits_that_it_does_not_know(scene: Scene) -> None:
    quota = scene.quota(budget(TEAM, tokens=100), rpm=5)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.acquire(quota)
    await scene.redis.execute_command("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    other = quota_at("k2", None, None, (budget(TEAM, tokens=100),), scene.now)
    with pytest.raises(SpendUnknown):
        await scene.acquire(other)
    await scene.summed()
    # It ends when only the other key's limits are known: the router has to look.
    await scene.release(quota, 30, number=2)
    assert await scene.spent(TEAM) == (0, 0, RECOUNTING)
    await scene.summed(tokens=4)
    assert await scene.spent(TEAM) == (34, 0, KNOWN)
    decision = await scene.acquire(quota)
    assert spent_of(decision.left, 1) == [(34, 0)]


@pytest.mark.parametrize("named", [True, False])
async def test_releases_may_send_the_limits(scene: Scene, named: bool) -> None:
    scene.named = named
    quota = scene.quota(budget(tokens=100), budget(TEAM, tokens=90))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    for _ in range(3):
        await scene.acquire(quota)
        await scene.release(quota, 30)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert refused.value.subject == TEAM
    assert (await scene.spent(), await scene.spent(TEAM)) == (
        (90, 0, KNOWN),
        (90, 0, KNOWN),
    )


async def test_a_lower_limit_holds_while_requests_with_the_old_one_end(
    scene: Scene,
) -> None:
    """Both were found to allow requests before."""
    quota = scene.quota(budget(tokens=1_000))
    lowered = scene.quota(budget(tokens=50))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    for has in (quota, lowered):
        await scene.acquire(has)
    await scene.release(quota, 50, number=2)
    await scene.acquire(quota)
    with pytest.raises(BudgetSpent):
        await scene.acquire(lowered)


async def test_limits_of_a_minute_by_the_clock_of_redis(scene: Scene) -> None:
    routing = RoutingFunctions(ClientCaller(scene.redis), STREAM)
    quota = quota_at("k", 40, 1_000, (), T0)
    for number in range(40):
        request = f"q{number}"
        ask = made_ask(request, quota=quota, tells=number == 0)
        decision = await routing.acquire(ask)
        assert LEFT[0].unpack_from(decision.left) == (number + 1, 10 * number)
        used = {"quota": quota, "tokens": 10}
        event = event_of(request, T0, 10, 0)
        await routing.release(made_release("a1", request, event=event, **used))
    with pytest.raises(KeyLimited) as refused:
        await routing.acquire(made_ask("last", quota=quota))
    assert refused.value.which == "requests"
    assert 0 < refused.value.wait_ms <= 65_000


async def test_gateways_of_the_version_before_count_together(scene: Scene) -> None:
    quota = scene.quota(rpm=2)
    await scene.acquire(quota)
    call = "FCALL", "rpx_limits_v1", 1, "{rpx}:spent:k", "k", 2, "", scene.now
    assert await scene.redis.execute_command(*call) == []
    with pytest.raises(KeyLimited):
        await scene.acquire(quota)
    assert (await scene.redis.execute_command(*call))[0] == b"requests"


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    limits=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    reserve=st.booleans(),
    steps=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 9), st.booleans()), max_size=25
    ),
)
async def test_it_decides_as_the_rules_in_python_do(
    scene: Scene,
    limits: tuple[int, int],
    reserve: bool,
    steps: list[tuple[int, int, bool]],
) -> None:
    """Requests that use so many tokens and billionths; some of them in the next
    window."""
    scene.subjects += 1
    subject = f"key:p{scene.subjects}"
    has = budget(subject, tokens=limits[0], nanos=limits[1], reserve=reserve)
    quota = scene.quota(has)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    state = State(quota.starts[0], quota.ends[0], KNOWN)
    for tokens, nanos, moves_on in steps:
        if moves_on:
            scene.now += DAY
            quota = scene.quota(has)
            state = state.at(quota.starts[0], quota.ends[0])
        why = await scene.refused(quota, str(tokens))
        assert why == refusal(has, state, tokens)
        if why:
            continue
        await scene.release(quota, tokens, nanos)
        state.tokens, state.nanos = state.tokens + tokens, state.nanos + nanos
        assert await scene.spent(subject) == (state.tokens, 0, KNOWN)


async def test_limits_cost_no_command_in_redis(scene: Scene) -> None:
    """Counts are in the library's memory: a key with limits runs the same commands as
    one without, and one without the same functions as before."""
    quota = scene.quota(budget(tokens=10**9), rpm=10**6)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()

    async def commands(has: Quota | None) -> dict[str, int]:
        await scene.redis.config_resetstat()
        for _ in range(3):
            scene.number += 1
            request = f"r{scene.number}"
            await scene.routing.acquire(made_ask(request, quota=has))
            used: dict[str, Any] = {}
            if has:
                used = {"quota": has, "tokens": 5, "nanos": 5}
            await scene.routing.release(made_release("a1", request, **used))
        stats = await scene.redis.info("commandstats")
        return {name: stat["calls"] for name, stat in stats.items()}

    await commands(quota)  # writes the counts of this slot
    assert await commands(quota) == await commands(None)


async def test_what_a_minute_counts_can_be_read(scene: Scene) -> None:
    quota = quota_at("k", 5, 100, (), scene.now)
    await scene.acquire(quota)
    await scene.release(quota, 7)
    assert await scene.routing.used("k", "other") == [(1, 7), (0, 0)]
    scene.now += 66_000
    assert await scene.routing.used("k") == [(0, 0)]
