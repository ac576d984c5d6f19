"""Requests that wait for a resource."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import consumes, multiple, rule

from libs.common.routing.types import Lease, Place, digest
from tests.integration.routing.histories.both import ASKED, WAITING, Asked, Both
from tests.integration.routing.histories.outcomes import changed
from tests.integration.routing.histories.values import DRAWS, GATEWAYS, MODELS, SHARES


class Queues(Both):
    """What gateways ask for requests that wait."""

    @rule(
        target=WAITING,
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

    @rule(target=WAITING, asked=consumes(WAITING), left_ms=st.sampled_from([0, 2_000]))
    def ask_in_the_queue(self, asked: Asked, left_ms: int) -> Any:
        if asked.ask.request_id in self.held:
            return multiple()
        place = asked.ask.place
        assert place is not None
        place = replace(place, left_ms=left_ms)
        chosen = self.ask_both(replace(asked.ask, place=place))
        return multiple() if chosen or not left_ms else asked

    @rule(target=ASKED, asked=consumes(ASKED), draw=DRAWS, share=SHARES)
    def wait_for_another(
        self, asked: Asked, draw: int, share: tuple[str, float]
    ) -> Asked:
        """The next attempt, which may wait for another resource. Another share than
        before is that of another target of the request's alias; where the request waits
        already, the call by which it left that place was lost."""
        return self._for_another(asked, draw, share)

    def _for_another(self, asked: Asked, draw: int, share: tuple[str, float]) -> Asked:
        if not asked.resource_id:
            return asked
        tried = *asked.tried, asked.resource_id
        ask = changed(asked.ask, asked.resource_id, tried, draw)
        ask = replace(ask, place=Place(share[0], 1_000, share[1]))
        chosen = self.ask_both(ask)
        return Asked(ask, asked.model, chosen or asked.resource_id, tried)

    @rule(target=ASKED, asked=consumes(ASKED), draw=DRAWS, share=SHARES)
    def wait_while_its_gateway_reconnects(
        self, asked: Asked, draw: int, share: tuple[str, float]
    ) -> Asked:
        """The gateway restores the leases of its requests, also of those that wait."""
        waits = self._for_another(asked, draw, share)
        request, id_ = waits.ask.request_id, waits.resource_id
        if request in self.held or id_ not in self.python.resources:
            return waits
        leases = [Lease(request, id_, b"{}")]
        self.run(self.lua.resume(waits.ask.gateway_id, leases))
        self.python.resume(waits.ask.gateway_id, leases)
        self.held[request] = id_
        chosen = self.ask_both(waits.ask)
        return replace(waits, resource_id=chosen or id_)

    @rule(asked=consumes(WAITING))
    def leave_a_queue(self, asked: Asked) -> None:
        """Its client left."""
        if asked.ask.request_id in self.held:
            return
        place = asked.ask.place
        assert place is not None
        entry = place.entry(asked.ask)
        left = self.run(self.lua._fcall("leave_v1", entry, self.now))
        assert left == self.python.queues.leave(entry, self.now)
        self.report(asked, None)

    @rule(gateway=GATEWAYS, pools=st.sampled_from([["*"], ["*", "p"], ["p", "@x"]]))
    def ask_for_turns(self, gateway: str, pools: list[str]) -> None:
        classes = [f"pool:{pool}" for pool in pools] + ["account:a", "account:b"]
        told = self.run(self.lua.turns(gateway, classes))
        assert told == self.python.queues.turns(gateway, classes, self.now)
