"""Logs what stored events say that an operator wants to find: health transitions and
dead letters. Lines of one cause are limited (`LogLimit`)."""

from collections.abc import Sequence

import structlog

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import HealthEvent, StreamedEvent
from libs.common.runtime.log_limit import LogLimit, more
from libs.common.store.interface import DeadLetter

log = structlog.get_logger()

CHARS = 200  # of what a client or an upstream chose
_limit = LogLimit()


def tell(stored: Sequence[StreamedEvent], dead: Sequence[DeadLetter]) -> None:
    """Log the events of a batch. A batch that is stored again is logged again."""
    for streamed in stored:
        if isinstance(streamed.event, HealthEvent):
            _tell_health(streamed.event)
    for letter in dead:
        _tell_dead(letter)


def _tell_health(event: HealthEvent) -> None:
    left_out = _limit.take(f"health {event.resource_id} {event.after}")
    if left_out is None:
        return
    say = log.info if event.after is HealthState.HEALTHY else log.warning
    say(
        "the health of a resource changed",
        action="health_changed",
        resource=event.resource_id,
        model=event.model and event.model[:CHARS],
        before=event.before,
        after=event.after,
        cause=event.cause[:CHARS],
        at_ms=event.created_at_ms,
        cooldown_until_ms=event.cooldown_until_ms,
        **more(left_out),
    )


def _tell_dead(letter: DeadLetter) -> None:
    left_out = _limit.take(f"dead letter {letter.kind}")
    if left_out is not None:
        log.warning(
            "moved an entry to the dead letters",
            action="dead_letter",
            entry_id=letter.entry_id,
            kind=letter.kind,
            event_id=letter.event_id,
            reason=letter.reason[:CHARS],
            **more(left_out),
        )
