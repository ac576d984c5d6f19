"""The function library and its Python reference, run with the same random histories on
a real server: they make the same choices, and lease counts stay correct."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.contracts.verdicts import Verdict
from libs.common.redis import keys
from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.circuit_breaker import NEVER
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import (
    Ask,
    Asker,
    Decision,
    ForeignId,
    Lease,
    NoCapacity,
    Owner,
    OwnerLimited,
    Refusal,
    Release,
    digest,
    model_digest,
)
from services.router.function_library import LIBRARY
from tests.support.memory.reference import ReferenceRouting

STREAM = "telemetry:events"
COOLDOWN_MS = 1_000
SILENT_MS = 5_000
GATEWAYS = st.sampled_from(["gw-a", "gw-b", "gw-c"])
MODELS = st.sampled_from([None, "gpt-5.5", 'odd "model"'])
POOLS = st.sampled_from([None, None, "p", "q", "nowhere", "@x", "@y"])
SESSIONS = st.sampled_from(["", "", digest("s1"), digest("s2")])
IDS = st.lists(
    st.sampled_from([digest(f"resp_{n}") for n in range(4)]), max_size=2, unique=True
).map(tuple)
TENANTS = st.sampled_from(["", "", "key:a", "team:b"])
# Bound ids and one more; most requests are not isolated.
KINDS = st.sampled_from(["", "", "nrn", "rrr", "nnn"])
DRAWS = st.integers(0, 2**31 - 1)
OK = Verdict(kind="ok")
FAULT = Verdict(kind="fault", cause="500")
REFUSED = Verdict(kind="refused", cause="401 invalid_api_key")
EXHAUSTED = Verdict(kind="exhausted", cause="429 insufficient_quota")
LIMITED = [
    Verdict(kind="limited", cause="429 rate limited", cooldown_ms=ms)
    for ms in (None, 10, 2_500)
]
VERDICTS = st.sampled_from(
    [OK] * 4 + [FAULT] * 4 + LIMITED * 2 + [Verdict(kind="neutral"), REFUSED, EXHAUSTED]
)


def resource(
    number: int,
    weight: float,
    pool: str | None,
    account: str,
    credential: str,
    provider: str | None = None,
) -> Resource:
    return Resource(
        id=f"openai-{number}",
        name=f"openai-{number}",
        pool_id=pool,
        account_id=account,
        weight=weight,
        base_url="http://127.0.0.1:1/v1",
        credential=f"env:{credential}",
        provider_id=provider,
    )


RESOURCES = 4
SMALL = st.lists(
    st.builds(
        resource,
        st.integers(1, RESOURCES),
        st.sampled_from([1, 1, 2, 0.5, 3]),
        st.sampled_from(["p", "p", "q", None]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["K", "K", "K2"]),
        st.sampled_from([None, "x", "x", "y"]),
    ),
    min_size=1,
    max_size=RESOURCES,
    unique_by=lambda r: r.id,
)
# More than the number of ranks that a choice looks at.
LARGE = st.integers(15, 20).map(
    lambda n: [
        resource(i, 1, "p", "ab"[i % 2], "K", "x" if i > 2 else None)
        for i in range(1, n + 1)
    ]
)


@dataclass
class Asked:
    """A request in progress, as its gateway knows it."""

    ask: Ask
    model: str | None
    resource_id: str  # empty if the answer to its acquire was lost
    tried: tuple[str, ...] = ()
    over: bool = field(default=False)


class Histories(RuleBasedStateMachine):
    url = ""
    asked = Bundle("asked")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1_760_000_000_000
        self.count = 0
        self.redis: Redis = connect(self.url)
        terms = Terms(cooldown_ms=COOLDOWN_MS)
        self.lua = RoutingFunctions(
            ClientCaller(self.redis), STREAM, terms, LIBRARY, lambda: self.now
        )
        self.python = ReferenceRouting(COOLDOWN_MS)
        self.held: dict[str, str] = {}  # request -> resource: the bare truth
        self.owner: dict[str, str] = {}  # request -> gateway

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    # What happens ------------------------------------------------------------

    @initialize(resources=st.one_of(SMALL, LARGE))
    def begin(self, resources: list[Resource]) -> None:
        self.run(self.redis.flushall())
        self.run(self.lua.load_library())
        self.publish(resources)

    @rule(resources=st.one_of(SMALL, LARGE))
    def publish(self, resources: list[Resource]) -> None:
        self.count += 1
        catalogue = Catalogue(version=f"v{self.count}", resources=tuple(resources))
        self.run(self.lua.publish(catalogue, f"e{self.count}"))
        self.python.publish(resources)

    @rule(
        target=asked,
        gateway=GATEWAYS,
        pool=POOLS,
        model=MODELS,
        session=SESSIONS,
        bound=IDS,
        encrypted=st.booleans(),
        resolved=st.booleans(),
        tenant=TENANTS,
        strict=st.booleans(),
        kinds=KINDS,
        lost=st.sampled_from([False, False, False, True]),
        draw=DRAWS,
    )
    def acquire(self, **given: Any) -> Any:
        asked = self._acquire(**given)
        return asked if asked is not None else multiple()

    def _acquire(self, *, model: str | None, lost: bool, **given: Any) -> Asked | None:
        self.count += 1
        ask = Ask(
            request_id=f"r{self.count}",
            decision_id=f"d{self.count}",
            attempt=1,
            gateway_id=given["gateway"],
            pool_id=given["pool"],
            session_id=None,
            session=given["session"],
            model=model_digest(model),
            bound=given["bound"],
            account_bound=given["encrypted"],
            tried=(),
            previous="",
            lease=b'{"id":"r%d"' % self.count,
            draw=given["draw"],
            resolved=given["resolved"],
            asker=_asker(given),
        )
        self.check_ids(ask)
        chosen = self.ask_both(ask)
        return Asked(ask, model, "" if lost else chosen) if chosen else None

    @rule(target=asked, asked=consumes(asked), draw=DRAWS)
    def try_again(self, asked: Asked, draw: int) -> Any:
        """The next attempt, on another resource."""
        tried = (*asked.tried, asked.resource_id) if asked.resource_id else asked.tried
        ask = _changed(asked.ask, asked.resource_id, tried, draw)
        if not asked.resource_id:
            return asked
        chosen = self.ask_both(ask)
        return Asked(ask, asked.model, chosen or asked.resource_id, tried)

    def check_ids(self, ask: Ask) -> None:
        """Ids can also be checked without routing."""

        def ours() -> tuple[str, ...]:
            self.python.check_ids(ask)
            return ()

        def theirs() -> tuple[str, ...]:
            self.run(self.lua.check(ask))
            return ()

        assert _refused(theirs) == _refused(ours)

    def ask_both(self, ask: Ask) -> str | None:
        ours = _outcome(lambda: self.python.acquire(ask, self.now))
        theirs = _outcome(lambda: self.run(self.lua.acquire(ask)))
        assert theirs == ours
        if not isinstance(ours[0], str):
            return None
        self.held[ask.request_id] = ours[0]
        self.owner[ask.request_id] = ask.gateway_id
        return ours[0]

    @rule(asked=asked, verdict=VERDICTS)
    def attempt_failed(self, asked: Asked, verdict: Verdict) -> None:
        self.report(asked, verdict, over=False)

    @rule(
        target=ended,
        asked=consumes(asked),
        verdict=st.one_of(st.none(), VERDICTS),
        learned=IDS,
    )
    def release(
        self, asked: Asked, verdict: Verdict | None, learned: tuple[str, ...]
    ) -> Asked:
        self.report(asked, verdict, learned)
        self.held.pop(asked.ask.request_id, None)
        return asked

    @rule(asked=ended, verdict=VERDICTS)
    def release_again(self, asked: Asked, verdict: Verdict) -> None:
        self.report(asked, verdict)

    def report(
        self,
        asked: Asked,
        verdict: Verdict | None,
        learned: tuple[str, ...] = (),
        *,
        over: bool = True,
    ) -> None:
        release = Release(
            request_id=asked.ask.request_id,
            gateway_id=asked.ask.gateway_id,
            resource_id=asked.resource_id,
            verdict=verdict,
            session=asked.ask.session,
            learned=learned,
            model=asked.model,
            event=b"{}" if over else None,
            tenant=asked.ask.asker.tenant,
        )
        self.run(self._released(release))
        self.python.release(release, self.now)

    async def _released(self, release: Release) -> None:
        await self.lua.release(release)

    @rule(number=st.integers(1, RESOURCES), verdict=VERDICTS)
    def check(self, number: int, verdict: Verdict) -> None:
        self.run(self.lua.verdict(f"openai-{number}", verdict))
        self.python.verdict(f"openai-{number}", verdict, self.now)

    @rule(
        number=st.integers(1, RESOURCES),
        verdict=st.sampled_from([FAULT, EXHAUSTED, *LIMITED]),
        times=st.integers(2, 7),
        late_ms=st.sampled_from([-1, 0, 1]),
    )
    def check_keeps_failing(
        self, number: int, verdict: Verdict, times: int, late_ms: int
    ) -> None:
        """Each check runs about when the previous cooldown is over."""
        for _ in range(times):
            self.check(number, verdict)
            health = self.python.health.get(f"openai-{number}")
            if health and self.now < health.ready_ms < NEVER:
                self.now = int(health.ready_ms) + late_ms
            elif health and health.retry_at:
                self.check(number, OK)  # half open

    @rule(
        gateway=GATEWAYS,
        verdict=st.sampled_from([FAULT, OK, *LIMITED]),
        model=MODELS,
        times=st.integers(2, 6),
        draw=DRAWS,
    )
    def serve(self, verdict: Verdict, times: int, **given: Any) -> None:
        """Serve requests from acquire to release, one after the other."""
        for _ in range(times):
            more: dict[str, Any] = {"pool": None, "session": "", "bound": ()}
            more |= {"encrypted": False}
            asked = self._acquire(lost=False, resolved=True, **more, **given)
            if asked is None:
                return
            self.report(asked, verdict)
            del self.held[asked.ask.request_id]

    @rule(
        session=SESSIONS,
        ids=IDS,
        number=st.integers(0, RESOURCES),
        account=st.sampled_from(["a", "b", "gone"]),
        tenant=TENANTS,
    )
    def told_by_sql(
        self,
        session: str,
        ids: tuple[str, ...],
        number: int,
        account: str,
        tenant: str,
    ) -> None:
        owner = Owner(f"openai-{number}", account, tenant) if number else None
        sessions = {session: owner} if session else {}
        owners = dict.fromkeys(ids, owner)
        self.run(self.lua.adopt(sessions, owners))
        self.python.remember(sessions, owners)

    @rule(ms=st.sampled_from([1, 500, 1_001, 5_000, 31_000, 120_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(late_ms=st.sampled_from([-1, 0, 1]), which=DRAWS)
    def something_comes_due(self, late_ms: int, which: int) -> None:
        """A cooldown or a trial ends about now, where rules differ by a millisecond."""
        circuits = [*self.python.health.values()]
        ends = [health.ready_ms for health in circuits] + [
            pause.ready_ms
            for paused in self.python.cooldowns.values()
            for pause in paused.values()
        ]
        coming = sorted(e for e in ends if self.now < e < NEVER)
        if coming:
            self.now = int(coming[which % len(coming)]) + late_ms

    @rule(gateway=GATEWAYS)
    def beat(self, gateway: str) -> None:
        beat = self.run(self.lua.heartbeat(gateway))
        assert beat.known == self.python.heartbeat(gateway, self.now)
        if beat.known:
            return
        # Reaped or new: the requests it still serves count again.
        leases = [
            Lease(request, self.held[request], b"{}")
            for request, owner in self.owner.items()
            if owner == gateway and request in self.held
        ]
        self.run(self.lua.resume(gateway, leases))
        self.python.resume(gateway, leases)

    @rule(strays=st.booleans())
    def reap(self, *, strays: bool) -> None:
        """To the router, gateways without heartbeats have crashed."""
        ended = self.python.reap(SILENT_MS, self.now, strays=strays)
        assert self.run(self.lua.reap(SILENT_MS, strays=strays)) == len(ended)
        for request in ended:
            del self.held[request]

    # What holds at every step ------------------------------------------------

    @invariant()
    def in_flight_is_what_leases_say(self) -> None:
        if not self.python.resources:
            return
        states = {s.id: s for s in self.run(self.lua.states())}
        found = {id_: state.in_flight for id_, state in states.items()}
        truth = Counter(self.held.values())
        assert found == self.python.in_flight() == {id_: truth[id_] for id_ in states}
        ranked = self.run(self.redis.zrange(keys.ranking("*"), 0, -1, withscores=True))
        expected = {s.resource_id: s.rank for s in self.python.standings()}
        assert {id_.decode(): rank for id_, rank in ranked} == expected
        for id_, health in self.python.health.items():
            if id_ in states and not states[id_].paused_models:
                assert states[id_].health == health.state

    def teardown(self) -> None:
        if self.python.resources:
            self.end_everything()
        self.run(self.redis.aclose())
        self.runner.close()

    def end_everything(self) -> None:
        """Half of the requests are released; the gateways of the others crash."""
        for request in list(self.held)[::2]:
            self.run(self.lua.abandon(self.owner[request], [request]))
            del self.held[request]
        self.run(self.lua.reap(SILENT_MS, strays=True))
        self.now += SILENT_MS + 1
        self.run(self.lua.reap(SILENT_MS))
        assert sum(s.in_flight for s in self.run(self.lua.states())) == 0
        assert self.run(self.redis.keys(keys.leases("*"))) == []
        assert self.run(self.redis.keys(f"{keys.TAG}:retired")) == []


def _changed(ask: Ask, previous: str, tried: tuple[str, ...], draw: int) -> Ask:
    fields = {name: getattr(ask, name) for name in Ask.__struct_fields__}
    return Ask(
        **fields
        | {
            "attempt": ask.attempt + 1,
            "previous": previous,
            "tried": tried,
            "draw": draw,
            "resolved": True,
        }
    )


def _asker(given: dict[str, Any]) -> Asker:
    kinds = given.get("kinds", "")
    tenant, strict = given.get("tenant", ""), given.get("strict", False)
    if not kinds:
        return Asker(tenant, strict)
    further = digest("resp_further"), digest("resp_0")
    count = len(kinds) - len(given["bound"])
    return Asker(tenant, strict, kinds, (*further, digest("x"))[:count])


def _refused(check: Any) -> tuple[Any, ...]:
    """The refusal for the ids, in a form that both sides share."""
    try:
        check()
    except ForeignId as refused:
        return refused.which, refused.known
    except Refusal as refusal:
        return (type(refusal),)
    return ()


def _outcome(acquire: Any) -> tuple[Any, ...]:
    """The result of acquire, in a form that both sides share."""
    try:
        found = acquire()
    except ForeignId as refused:
        return ForeignId, refused.which, refused.known
    except Refusal as refusal:
        wait = (
            refusal.retry_after_ms
            if isinstance(refusal, NoCapacity | OwnerLimited)
            else None
        )
        return type(refusal), wait
    if isinstance(found, Decision):
        trial, cause = found.trial, msgspec.json.decode(found.event).get("cause")
    else:
        trial, cause = found.how == "trial", found.cause
    return found.resource_id, found.reason, trial, cause


@pytest.mark.timeout(600)  # shrinking a failure takes up to five minutes
def test_lua_and_python_agree_on_every_history(valkey: str) -> None:
    Histories.url = valkey
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
