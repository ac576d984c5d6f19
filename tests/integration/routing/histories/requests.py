"""Requests from acquire to release."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import consumes, multiple, rule

from libs.common.routing.types import digest
from libs.common.upstream_answers.rate_limits import Told
from libs.common.upstream_answers.verdicts import Verdict
from tests.integration.routing.histories.both import ASKED, ENDED, Asked, Both
from tests.integration.routing.histories.outcomes import changed
from tests.integration.routing.histories.values import (
    DRAWS,
    FAULT,
    GATEWAYS,
    IDS,
    KINDS,
    LIMITED,
    MODELS,
    OK,
    POOLS,
    SESSIONS,
    SOCKETS,
    TENANTS,
    TOKENS,
    TOLD,
    VERDICTS,
)


class Requests(Both):
    """What gateways ask and report for their requests."""

    @rule(
        target=ASKED,
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

    @rule(target=ASKED, asked=consumes(ASKED), draw=DRAWS, stale=st.booleans())
    def try_again(self, asked: Asked, draw: int, *, stale: bool) -> Any:
        """The next attempt, on another resource. `stale`: or on the same one."""
        failed = asked.resource_id and not stale
        tried = (*asked.tried, asked.resource_id) if failed else asked.tried
        ask = changed(asked.ask, asked.resource_id, tried, draw)
        if not asked.resource_id:
            return asked
        chosen = self.ask_both(ask)
        return Asked(ask, asked.model, chosen or asked.resource_id, tried)

    @rule(asked=ASKED, verdict=VERDICTS, limits=TOLD)
    def attempt_failed(self, asked: Asked, verdict: Verdict, limits: str) -> None:
        self.report(asked, verdict, over=False, limits=limits)

    @rule(
        target=ENDED,
        asked=consumes(ASKED),
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

    @rule(asked=ENDED, verdict=VERDICTS)
    def release_again(self, asked: Asked, verdict: Verdict) -> None:
        self.report(asked, verdict)

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
        target=ASKED,
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
