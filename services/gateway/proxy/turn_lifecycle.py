"""The lifecycle of a turn of a WebSocket, and of the upgrade that becomes the first
one. Pure."""

from libs.common.routing.types import CHAINED, CONFINED, DECIDED, Decision, Lease
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway.content.response_facts import Facts
from services.gateway.errors import Problem
from services.gateway.ledger.record import NEUTRAL
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.outcome import take_facts
from services.gateway.proxy.retry import may_repeat
from services.gateway.proxy.steps import RELAYED, Next


class TurnLifecycle(Lifecycle):
    """A turn prefers the resource that its socket leads to."""

    before = 0  # attempts that its upgrade made for another resource
    unreadable = False  # its account is gone: it has to be rewritten
    retried = False  # an attempt failed after its frame was sent

    def begin_turn(self, now: float, now_ms: int) -> None:
        """As `RequestContext.begin_turn`."""
        super().begin_turn(now, now_ms)
        self.before = self.record.attempts - 1

    def on_socket(self, resource_id: str, *, confined: bool = False) -> None:
        """The next decisions are for a turn on a socket that leads to this resource.
        `confined`: it continues a response that only this socket's upstream remembers.
        A first turn has the decision of its upgrade."""
        record = self.record
        chained = self.hints.previous_response_id is not None
        self.socket, self.turn = resource_id, CONFINED if confined else ""
        if chained and not confined:
            self.turn = CHAINED
        if record.resource_id == resource_id and not self.retried:
            self.turn += DECIDED
            self.cause = ""

    def resent_elsewhere(self, *, rewritten: bool = False) -> None:
        """The upstream failed before its answer began: another resource is tried, or
        the same one without the reasoning that it could not read."""
        self.retried, self.unreadable = True, rewritten

    def readable(self) -> None:
        """It was rewritten."""
        self.unreadable = False

    def acquired(self, decision: Decision, account_id: str, attempt: int) -> None:
        """As `Lifecycle.acquired`. The decision of the upgrade was an attempt."""
        if DECIDED in self.turn and decision.resource_id == self.socket:
            attempt -= 1
        self.turn = self.turn.replace(DECIDED, "")
        super().acquired(decision, account_id, attempt)

    def lease(self) -> Lease | None:
        """As `Lifecycle.lease`. That of the upgrade was released."""
        return None if DECIDED in self.turn else super().lease()

    def refused(self, problem: Problem, *, first: bool) -> Next:
        """As `Lifecycle.refused`."""
        return super().refused(problem, first=first and not self.retried)

    @property
    def may_repeat(self) -> bool:
        """As `RequestContext.may_repeat`. The request of a turn is its frame, not the
        upgrade."""
        return not self.socket or may_repeat("POST", self.path, self.hints)

    @property
    def made(self) -> int:
        """Attempts of this turn."""
        return self.record.attempts - self.before

    # The end -----------------------------------------------------------------

    def received(self, size: int, token_at: float | None) -> None:
        """An event of a turn passed. `token_at`: when, if it carries output."""
        record = self.record
        record.response_bytes += size
        if token_at is not None and record.first_token_ms is None:
            record.first_token_ms = self.ms(token_at)

    def concluded(
        self,
        outcome: str,
        facts: Facts,
        verdict: Verdict = NEUTRAL,
        status: int | None = None,
    ) -> None:
        """Take in how a turn of a socket ended."""
        record = self.record
        record.outcome = outcome
        if record.attempts > 1 and self.problem is None:  # of an earlier attempt
            record.error_code = record.error_message = None
        record.status_code = record.status_code if status is None else status
        take_facts(record, facts)
        record.minted = facts.ids
        self.verdict = verdict
        self.phase = RELAYED
