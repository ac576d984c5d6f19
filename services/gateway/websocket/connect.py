"""Opens upstream sockets: one resource after the other, until one accepts."""

from libs.common.contracts.events import Cause
from libs.common.upstream_answers.verdicts import judge
from services.gateway import errors
from services.gateway.content.response_facts import read_answer
from services.gateway.proxy.attempts import Attempts
from services.gateway.proxy.failures import utc_now
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.retry import cause_of
from services.gateway.proxy.steps import Failure, Next
from services.gateway.proxy.turn_lifecycle import TurnLifecycle
from services.gateway.routing.target import Target
from services.gateway.upstream.client import UpstreamError
from services.gateway.websocket.leases import AFFINITY, SocketLeases
from services.gateway.websocket.turns import PATH
from services.gateway.websocket.upstream import Opened, Opener, UpgradeRefused


class SocketConnector:
    """Opens upstream sockets for clients."""

    def __init__(
        self, attempts: Attempts, leases: SocketLeases, opener: Opener
    ) -> None:
        self._attempts = attempts
        self._leases = leases
        self._opener = opener

    async def open(self, life: Lifecycle) -> Opened | None:
        """An open socket. None: the client gets `life.failure`. Raises a `Problem`."""
        opened: Opened | None = None

        async def attempt(life: Lifecycle, target: Target) -> Next:
            nonlocal opened
            step, opened = await self._dial(life, target)
            return step

        step = await self._attempts.run(life, attempt)
        if step is not Next.DONE and life.problem is not None:
            raise life.problem
        if step is not Next.DONE:
            life.passes_on()
        return opened

    async def move(self, life: TurnLifecycle, target: Target) -> Opened | None:
        """The socket that the first turn uses instead of `target`'s, if any.

        A socket is opened by its headers; its first turn may name ids or a session that
        live elsewhere, and nothing was sent on the socket yet. Raises a `Problem` when
        the turn's model alias leads elsewhere, and no socket opens there; or when only
        an account that cannot serve can read the turn."""
        await self._attempts.locate(life)
        alias = life.alias
        if alias is not None and alias.provider_id != target.resource.provider_id:
            return await self._open_by_alias(life)
        if not life.bound and not life.session:
            return None
        ask = self._attempts.ask(life)
        if not await self._leases.belong_elsewhere(ask, target.resource):
            return None
        life.elsewhere(Cause.LIVES_ELSEWHERE)
        opened: Opened | None = None

        async def attempt(life: Lifecycle, home: Target) -> Next:
            nonlocal opened
            if life.reason not in AFFINITY or home.resource.id == target.resource.id:
                return Next.DONE
            step, opened = await self._dial(life, home)
            return step

        await self._attempts.run(life, attempt, most=1)
        # When its home cannot serve it, this upstream says so in its own words. Not for
        # encrypted reasoning: that error is fatal, also if the home is only limited.
        chained = life.hints.previous_response_id is not None
        if life.problem is not None and life.account_bound and not chained:
            raise life.problem
        return opened

    async def place(
        self, life: TurnLifecycle, current: Opened, most: int
    ) -> Opened | Failure:
        """The socket for a turn: `current` if its resource can serve, else a new one.
        Makes at most `most` attempts. Returns the upstream's last error when all
        failed. Raises a `Problem`."""
        opened: Opened | None = None

        async def attempt(life: Lifecycle, target: Target) -> Next:
            nonlocal opened
            if target.resource.id == current.target.resource.id and current.usable:
                opened = current
                return Next.DONE
            step, opened = await self._dial(life, target)
            return step

        if life.unreadable and not await self._attempts.rewritten_here(life):
            return life.passes_on()
        life.readable()
        step = await self._attempts.run(life, attempt, most)
        if step is Next.DONE and opened is not None:
            return opened
        if life.problem is not None:
            raise life.problem
        return life.passes_on()

    async def _open_by_alias(self, life: Lifecycle) -> Opened:
        opened = await self.open(life)
        if opened is None:
            status = 0 if life.failure is None else life.failure.status
            cause = f"the upstream refused the WebSocket with status {status}"
            raise errors.upstream_unreachable(life.record.attempts, cause)
        return opened

    async def _dial(
        self, life: Lifecycle, target: Target
    ) -> tuple[Next, Opened | None]:
        path = PATH + life.request.query
        try:
            connection = await self._opener.open(target, path, life.headers)
        except UpgradeRefused as refused:
            failure = Failure(refused.status, refused.headers, refused.body)
            facts = read_answer(refused.plain)
            step = life.rejected(failure, facts, utc_now)
            if step is Next.ANSWER:
                # A resource on trial waits for a verdict, and a move goes on.
                verdict = judge(refused.status, refused.headers, None, utc_now)
                life.another(verdict, cause_of(refused.status, verdict))
            return step, None
        except UpstreamError as error:
            return life.unopened(error), None
        return Next.DONE, Opened(connection, target)
