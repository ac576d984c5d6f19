"""What is noted of a request and its attempts until their spans are made. Pure."""

from dataclasses import dataclass, field

from services.gateway.tracing.trace_context import Parent, State


@dataclass(slots=True)
class AttemptTrace:
    """One attempt. Times are seconds of `time.perf_counter`."""

    number: int
    span_id: int
    resource_id: str
    address: str
    port: int
    provider: str  # as gen_ai.provider.name
    reason: str  # why it went there
    began: float
    ended: float | None = None
    cause: str = ""  # why it failed, as a `Cause`
    status: int | None = None  # of the answer, if it failed


@dataclass(slots=True)
class RequestTrace:
    """One request."""

    trace_id: int
    span_id: int
    parent: Parent | None  # the client's
    sampled: bool
    state: State
    attempts: list[AttemptTrace] = field(default_factory=list)

    def continued(self, number: int, resource_id: str) -> bool:
        """Does the last attempt go on? On a WebSocket its decision may be made before
        it is known which socket serves it."""
        if not self.attempts:
            return False
        last = self.attempts[-1]
        same = last.number == number and last.resource_id == resource_id
        return same and last.ended is None

    def end_last(self, now: float, cause: str = "", status: int | None = None) -> None:
        """Note that the last attempt ended. `cause`: why it failed."""
        if self.attempts and self.attempts[-1].ended is None:
            last = self.attempts[-1]
            last.ended, last.cause, last.status = now, cause, status
