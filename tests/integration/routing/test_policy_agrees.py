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

from libs.common.contracts.catalogue import Catalogue, Resource, ResourceState
from libs.common.contracts.rate_limits import Told
from libs.common.contracts.verdicts import Verdict
from libs.common.redis import keys
from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.account_limits import AccountLimits
from libs.common.routing.circuit_breaker import NEVER
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import (
    Ask,
    Asker,
    Busy,
    Decision,
    ForeignId,
    Lease,
    NoCapacity,
    Owner,
    OwnerLimited,
    Place,
    Queued,
    Refusal,
    Release,
    digest,
    model_digest,
)
from services.router.function_library import LIBRARY
from tests.fuzz.bounds import EXAMPLES
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
# The resource of a WebSocket and the letters of its request; most are without one.
SOCKETS = st.one_of(
    st.just(("", "")),
    st.tuples(
        st.sampled_from(["openai-1", "openai-1", "openai-2", "openai-99"]),
        st.sampled_from(["", "d", "c", "s", "dc", "ds", "o", "do", "co"]),
    ),
    st.just(("", "o")),  # a target of a model alias that has others
)
DRAWS = st.integers(0, 2**31 - 1)
OK = Verdict(kind="ok")
FAULT = Verdict(kind="fault", cause="500")
REFUSED = Verdict(kind="refused", cause="401 invalid_api_key")
EXHAUSTED = Verdict(kind="exhausted", cause="429 insufficient_quota")
LIMITED = [
    Verdict(kind="limited", cause="429 rate limited", cooldown_ms=ms)
    for ms in (None, 10, 2_500)
]
LIMITED += [msgspec.structs.replace(limited, of_account=True) for limited in LIMITED]
VERDICTS = st.sampled_from(
    [OK] * 6 + [FAULT] * 4 + LIMITED * 2 + [Verdict(kind="neutral"), REFUSED, EXHAUSTED]
)
# Estimated tokens of a request; None: limits of accounts do not matter.
TOKENS = st.sampled_from([None, 0, 10, 400, 5_000])
# Of requests or of tokens: limit, remaining, ms to the reset. Some are unknown, and
# some resets too far away.
LIMIT = st.one_of(
    st.just((-1, -1, -1)),
    st.tuples(
        st.just(1_000),
        st.sampled_from([0, 1, 240, 260, 1_000]),
        st.sampled_from([1, 900, 20_000, 3_600_001]),
    ),
)
TOLD = st.one_of(
    st.just(""),
    st.builds(
        lambda age, requests, tokens: Told(*requests, *tokens).encoded(age),
        st.sampled_from([0, 0, 1, 1_000]),
        LIMIT,
        LIMIT,
    ),
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


# Most histories are without limits of requests in flight.
BOUNDS = st.sampled_from(
    [
        {},
        {},
        {"most_in_flight": 1},
        {"most_in_flight": 2, "queue_ms": 5_000},
        {"most_in_flight": 1, "queue_ms": 3_000, "bound_queue_ms": 3_000},
        {"queue_ms": 3_000, "bound_queue_ms": 20_000},
    ]
)
SHARES = st.sampled_from([("key-a", 1), ("key-a", 1), ("key-b", 1), ("key-c", 2.5)])
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
LARGE = st.builds(
    lambda n, accounts: [
        resource(i, 1, "p", accounts[i % 10], "K", "x" if i > 2 else None)
        for i in range(1, n + 1)
    ],
    st.integers(15, 20),
    # The names of the four last resources, in the order of ranks, end in 6 to 9.
    st.sampled_from(["ababababab", "aaaaaabbbb"]),
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
    waiting = Bundle("waiting")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1_760_000_000_000
        self.count = 0
        self.redis: Redis = connect(self.url)
        self.bounded_by({})
        self.held: dict[str, str] = {}  # request -> resource: the bare truth
        self.owner: dict[str, str] = {}  # request -> gateway

    def bounded_by(self, bounds: dict[str, Any]) -> None:
        terms = Terms(cooldown_ms=COOLDOWN_MS, **bounds)
        self.lua = RoutingFunctions(
            ClientCaller(self.redis), STREAM, terms, LIBRARY, lambda: self.now
        )
        self.python = ReferenceRouting(COOLDOWN_MS, terms=terms)

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    # What happens ------------------------------------------------------------

    @initialize(resources=st.one_of(SMALL, LARGE), bounds=BOUNDS)
    def begin(self, resources: list[Resource], bounds: dict[str, Any]) -> None:
        self.bounded_by(bounds)
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
        socket=SOCKETS,
        tokens=TOKENS,
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
            socket=given["socket"][0],
            turn=given["socket"][1],
            tokens=given["tokens"],
            place=given.get("place"),
        )
        self.check_ids(ask)
        chosen = self.ask_both(ask)
        if ask.place and not chosen and ask.place.entry(ask) in self.waits():
            return Asked(ask, model, "")
        return Asked(ask, model, "" if lost else chosen) if chosen else None

    def waits(self) -> set[str]:
        """The entries of all queues."""
        queues = self.python.queues.by_class.values()
        return {entry for queue in queues for _, entry in queue.order}

    @rule(target=asked, asked=consumes(asked), draw=DRAWS, stale=st.booleans())
    def try_again(self, asked: Asked, draw: int, *, stale: bool) -> Any:
        """The next attempt, on another resource. `stale`: or on the same one."""
        failed = asked.resource_id and not stale
        tried = (*asked.tried, asked.resource_id) if failed else asked.tried
        ask = _changed(asked.ask, asked.resource_id, tried, draw)
        if not asked.resource_id:
            return asked
        chosen = self.ask_both(ask)
        return Asked(ask, asked.model, chosen or asked.resource_id, tried)

    @rule(
        target=waiting,
        share=SHARES,
        left_ms=st.sampled_from([0, 1_000, 3_000]),
        gateway=GATEWAYS,
        pool=st.sampled_from([None, None, "p", "@x"]),
        model=MODELS,
        bound=st.sampled_from([(), (), (digest("resp_1"),)]),
        draw=DRAWS,
        times=st.integers(1, 4),
    )
    def join_a_queue(
        self, share: tuple[str, float], left_ms: int, times: int, **given: Any
    ) -> Any:
        """Requests that were told that they may wait, or that begin with that."""
        place = Place(share[0], left_ms, share[1])
        more: dict[str, Any] = {"session": "", "encrypted": False, "socket": ("", "")}
        more |= {"tokens": 10, "resolved": True, "place": place}
        found = [self._acquire(lost=False, **more, **given) for _ in range(times)]
        return multiple(*filter(None, found))

    @rule(target=waiting, asked=consumes(waiting), left_ms=st.sampled_from([0, 2_000]))
    def ask_in_the_queue(self, asked: Asked, left_ms: int) -> Any:
        if asked.ask.request_id in self.held:
            return multiple()
        place = asked.ask.place
        assert place is not None
        place = msgspec.structs.replace(place, left_ms=left_ms)
        chosen = self.ask_both(msgspec.structs.replace(asked.ask, place=place))
        return multiple() if chosen or not left_ms else asked

    @rule(target=asked, asked=consumes(asked), draw=DRAWS, share=SHARES)
    def wait_for_another(
        self, asked: Asked, draw: int, share: tuple[str, float]
    ) -> Any:
        """The next attempt, which may wait for another resource."""
        if not asked.resource_id:
            return asked
        tried = *asked.tried, asked.resource_id
        ask = _changed(asked.ask, asked.resource_id, tried, draw)
        ask = msgspec.structs.replace(ask, place=Place(share[0], 1_000, share[1]))
        chosen = self.ask_both(ask)
        return Asked(ask, asked.model, chosen or asked.resource_id, tried)

    @rule(asked=consumes(waiting))
    def leave_a_queue(self, asked: Asked) -> None:
        """Its client left."""
        if asked.ask.request_id in self.held:
            return
        place = asked.ask.place
        assert place is not None
        entry = place.entry(asked.ask)
        left = self.run(self.lua._fcall("rpx_leave_v1", entry, self.now))
        assert left == self.python.queues.leave(entry, self.now)
        self.report(asked, None)

    @rule(gateway=GATEWAYS, pools=st.sampled_from([["*"], ["*", "p"], ["p", "@x"]]))
    def ask_for_turns(self, gateway: str, pools: list[str]) -> None:
        classes = [f"pool:{pool}" for pool in pools] + ["account:a", "account:b"]
        told = self.run(self.lua.turns(gateway, classes))
        assert told == self.python.queues.turns(gateway, classes, self.now)

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
        if ours[0] is Queued:
            self.held.pop(ask.request_id, None)
        if not isinstance(ours[0], str):
            return None
        self.held[ask.request_id] = ours[0]
        self.owner[ask.request_id] = ask.gateway_id
        return ours[0]

    @rule(asked=asked, verdict=VERDICTS, limits=TOLD)
    def attempt_failed(self, asked: Asked, verdict: Verdict, limits: str) -> None:
        self.report(asked, verdict, over=False, limits=limits)

    @rule(
        target=ended,
        asked=consumes(asked),
        verdict=st.one_of(st.none(), VERDICTS),
        learned=IDS,
        limits=TOLD,
    )
    def release(
        self,
        asked: Asked,
        verdict: Verdict | None,
        learned: tuple[str, ...],
        limits: str,
    ) -> Asked:
        self.report(asked, verdict, learned, limits=limits)
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
        limits: str = "",
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
            limits=limits,
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
        tokens=TOKENS,
        limits=TOLD,
    )
    def serve(self, verdict: Verdict, times: int, limits: str, **given: Any) -> None:
        """Serve requests from acquire to release, one after the other."""
        for _ in range(times):
            more: dict[str, Any] = {"pool": None, "session": "", "bound": ()}
            more |= {"encrypted": False, "socket": ("", "")}
            asked = self._acquire(lost=False, resolved=True, **more, **given)
            if asked is None:
                return
            self.report(asked, verdict, limits=limits)
            del self.held[asked.ask.request_id]

    @rule(
        target=asked,
        verdict=st.sampled_from([FAULT, EXHAUSTED, *LIMITED]),
        number=st.integers(1, RESOURCES),
        letters=st.sampled_from(["", "c", "s", "dc"]),
        encrypted=st.booleans(),
        model=MODELS,
        gateway=GATEWAYS,
        draw=DRAWS,
        tokens=TOKENS,
    )
    def a_sockets_key_dies(
        self, verdict: Verdict, number: int, letters: str, **given: Any
    ) -> Any:
        """The next turn of a WebSocket finds its resource unable to serve."""
        for _ in range(3):
            self.check(number, verdict)
        more: dict[str, Any] = {"pool": None, "session": "", "bound": ()}
        more["socket"] = f"openai-{number}", letters
        asked = self._acquire(lost=False, resolved=True, **more, **given)
        return asked if asked is not None else multiple()

    @rule(
        target=asked,
        session=st.sampled_from([digest("s1"), digest("s2")]),
        model=st.sampled_from(["gpt-5.5", 'odd "model"']),
        tokens=st.sampled_from([0, 10, 400]),
        left=st.sampled_from([0, 5, 250]),
        on_socket=st.booleans(),
        bound=st.sampled_from([(), (digest("resp_1"),)]),
        gateway=GATEWAYS,
        draw=DRAWS,
    )
    def an_account_is_used_up(
        self, session: str, left: int, *, on_socket: bool, **given: Any
    ) -> Any:
        """The next request of a session finds the account of its resource limited."""
        more: dict[str, Any] = {"pool": None, "encrypted": False, "session": session}
        socket = "", ""
        asked = self._acquire(lost=False, resolved=True, socket=socket, **more, **given)
        if asked is None:
            return multiple()
        told = Told(-1, -1, -1, 1_000, left, 20_000).encoded(0)
        self.report(asked, OK, limits=told)
        del self.held[asked.ask.request_id]
        if on_socket:
            socket = asked.resource_id, ""
        asked = self._acquire(lost=False, resolved=True, socket=socket, **more, **given)
        return asked if asked is not None else multiple()

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
        kept = self.run(self.lua.kept(sessions, owners))
        known = [self.python.sessions.get(session) for session in sessions]
        assert [k.owner for k in kept] == known + list(map(self.python.ids.get, owners))
        assert all((k.left_ms > 0) is (k.owner is not None) for k in kept)

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
        ends += self.python.limits.ends
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
            self.held.pop(request, None)  # one that waits holds no resource

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
        self.limits_agree(states)
        assert self.queues_in_redis() == self.queues_in_python()
        for id_, health in self.python.health.items():
            if id_ in states and not states[id_].paused_models:
                assert states[id_].health == health.state

    def queues_in_redis(self) -> dict[str, Any]:
        """Class -> its entries in order, and the requests and shares that wait."""
        found = {}
        for queue in self.run(self.lua.queues()):
            name = f"account:{queue.account_id}"
            if queue.account_id is None:
                name = f"pool:{queue.pool_id or '*'}"
            order = self.run(
                self.redis.zrange(keys.queue(name), 0, -1, withscores=True)
            )
            entries = [(start, entry.decode()) for entry, start in order]
            found[name] = entries, (queue.requests, queue.shares)
        return found

    def queues_in_python(self) -> dict[str, Any]:
        queues, counts = self.python.queues.by_class, self.python.queues.waiting()
        return {name: (queue.order, counts[name]) for name, queue in queues.items()}

    def limits_agree(self, states: dict[str, ResourceState]) -> None:
        """What operators are shown."""
        for model in ("gpt-5.5", 'odd "model"'):
            known = self.python.limits.of(model_digest(model), self.now)
            for id_, state in states.items():
                account = self.python.resources[id_].account_id
                ours = _shown(known.get(account), self.now)
                theirs = [
                    (limits.remaining_requests, limits.remaining_tokens)
                    for limits in state.limits
                    if limits.model == model
                ]
                assert theirs == ours

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


def _shown(
    limits: AccountLimits | None, now: float
) -> list[tuple[float | None, float | None]]:
    """Requests and tokens that remain."""
    if limits is None or limits.ends <= now:
        return []
    requests, tokens = (
        each.remaining if each.limit and each.reset_at > now else None
        for each in (limits.requests, limits.tokens)
    )
    return [(requests, tokens)]


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
            "turn": ask.turn.replace("d", ""),
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
            if isinstance(refusal, NoCapacity | OwnerLimited | Busy)
            else None
        )
        waits_for = refusal.waits_for if isinstance(refusal, Queued) else ""
        return type(refusal), wait, waits_for
    if isinstance(found, Decision):
        event = found.event or b"{}"  # of a socket's upgrade
        trial, cause = found.trial, msgspec.json.decode(event).get("cause")
    else:
        trial, cause = found.how == "trial", found.cause
    return found.resource_id, found.reason, trial, cause


@pytest.mark.timeout(600)  # shrinking a failure takes up to five minutes
def test_lua_and_python_agree_on_every_history(valkey: str) -> None:
    Histories.url = valkey
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=EXAMPLES or 60,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
