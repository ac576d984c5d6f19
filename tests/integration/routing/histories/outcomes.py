"""Requests from what was drawn, and results in a form that both sides share."""

from dataclasses import replace
from typing import Any

import msgspec

from libs.common.routing.types import (
    Ask,
    Asker,
    Busy,
    Decision,
    ForeignId,
    NoCapacity,
    OwnerLimited,
    Queued,
    Refusal,
    digest,
)


def changed(ask: Ask, previous: str, tried: tuple[str, ...], draw: int) -> Ask:
    return replace(
        ask,
        attempt=ask.attempt + 1,
        previous=previous,
        tried=tried,
        draw=draw,
        resolved=True,
        turn=ask.turn.replace("d", ""),
    )


def asker(given: dict[str, Any]) -> Asker:
    kinds = given.get("kinds", "")
    tenant, strict = given.get("tenant", ""), given.get("strict", False)
    if not kinds:
        return Asker(tenant, strict)
    further = digest("resp_further"), digest("resp_0")
    count = len(kinds) - len(given["bound"])
    return Asker(tenant, strict, kinds, (*further, digest("x"))[:count])


def refused(check: Any) -> tuple[Any, ...]:
    """The refusal for the ids, in a form that both sides share."""
    try:
        check()
    except ForeignId as refused:
        return refused.which, refused.known
    except Refusal as refusal:
        return (type(refusal),)
    return ()


def outcome(acquire: Any) -> tuple[Any, ...]:
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
