"""Converts a batch of events to rows for each table. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from libs.common.contracts.events import (
    DecisionEvent,
    RequestEvent,
    encode,
)
from libs.common.store.dedupe import Changes, GatewayDelta, SessionDelta
from libs.common.store.proxy_keys import uses
from libs.common.store.rollups import COLUMNS as SUMS
from libs.common.store.rollups import QUARTER, Rollups
from libs.common.store.rows import iso_ms

Plain = tuple[Any, ...]
QUARTER_MS = QUARTER * 1000


class Form(NamedTuple):
    """How a database accepts times and JSON."""

    at: Callable[[int], Any]  # a time, from Unix milliseconds
    json: Callable[[bytes], Any]


TEXT = Form(at=iso_ms, json=bytes.decode)

# Fields of the event are columns of the table in the same order, except the three
# that come first, and `minted`, which has its own table.
APART = {"id", "created_at_ms", "completed_at_ms", "minted"}
# Each event has a row in one of these. Ids that were minted are a part of a request.
OF_EVENTS = frozenset({"events", "requests", "decisions"})
_REST = tuple(f for f in RequestEvent.__struct_fields__ if f not in APART)
_rest_of_request = attrgetter(*_REST)
# The columns of each table in the order of its rows.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "events": ("id", "kind", "created_at", "data"),
    "requests": ("id", "created_at", "completed_at", *_REST),
    "decisions": (
        *("id", "request_id", "attempt", "created_at", "session_id", "pool_id"),
        *("resource_id", "reason", "candidates", "degraded", "cause", "waited_ms"),
    ),
    "minted_ids": (
        *("id", "created_at", "request_id", "resource_id", "account_id"),
        *("tenant", "repeated"),
    ),
}

# The same of what adds up.
SESSIONS = (
    *("id", "name", "first_seen_at", "last_seen_at", "requests", "total_tokens"),
    "last_resource_id",
)
GATEWAYS = (
    *("id", "started_at", "last_seen_at", "accepted", "ended", "held", "state"),
    *("stored", "shard"),
)
SPEND = ("subject", "at", "tokens", "nanos")
KEYS = ("last_used_at", "id")


def tables(changes: Changes, form: Form) -> Iterator[tuple[str, list[Plain]]]:
    """Return the rows of each table; omit tables without rows."""
    at, json = form
    groups: dict[str, list[Plain]] = {name: [] for name in COLUMNS}
    events, requests = groups["events"], groups["requests"]
    for streamed in changes.events:
        event = streamed.event
        created_at = at(event.created_at_ms)
        if isinstance(event, RequestEvent):
            ended_at = at(event.completed_at_ms)
            rest = _rest_of_request(event)
            requests.append((event.id, created_at, ended_at, *rest))
        elif isinstance(event, DecisionEvent):
            row = _decision(streamed.id, event, created_at, json)
            groups["decisions"].append(row)
        else:
            data = json(streamed.json)
            events.append((streamed.id, streamed.kind, created_at, data))
    groups["minted_ids"] = _minted(changes.requests, form)
    return ((name, rows) for name, rows in groups.items() if rows)


class Delta(NamedTuple):
    """What a batch adds to rows of a table: the statement, and its values with their
    names. Times are text."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Plain]


def deltas(changes: Changes, rollups: Rollups) -> Iterator[Delta]:
    """Return what adds up; omit what nothing is added to."""
    found = (
        Delta("put_sessions", SESSIONS, list(map(_session, changes.sessions))),
        Delta(
            "put_gateways",
            GATEWAYS,
            [_gateway(gateway, rollups.shard) for gateway in changes.gateways],
        ),
        Delta("touch_proxy_keys", KEYS, uses(changes.requests)),
        Delta("put_rollups", SUMS, rollups.rows(changes)),
    )
    return (delta for delta in found if delta.rows)


def _session(delta: SessionDelta) -> Plain:
    return (
        delta.id,
        delta.name,
        iso_ms(delta.first_seen_at_ms),
        iso_ms(delta.last_seen_at_ms),
        delta.requests,
        delta.total_tokens,
        delta.last_resource_id,
    )


def spend(requests: Iterable[RequestEvent]) -> Delta:
    """What requests used of the budgets of their keys and teams, by the quarter of an
    hour in which they began. What only ended as `interrupted` used nothing."""
    used: dict[tuple[str, int], list[int]] = {}
    for request in requests:
        tokens, nanos = request.total_tokens or 0, request.cost_nanos or 0
        if tokens <= 0 and nanos <= 0:
            continue
        at_ms = request.created_at_ms - request.created_at_ms % QUARTER_MS
        for kind, id_ in (("key", request.proxy_key_id), ("team", request.team_id)):
            if id_:
                sums = used.setdefault((f"{kind}:{id_}", at_ms), [0, 0])
                sums[0] += max(tokens, 0)
                sums[1] += max(nanos, 0)
    rows = [(who, iso_ms(at), *sums) for (who, at), sums in used.items()]
    return Delta("add_spend", SPEND, rows)


def _gateway(delta: GatewayDelta, shard: str) -> Plain:
    return (
        delta.id,
        None if delta.started_at_ms is None else iso_ms(delta.started_at_ms),
        None if delta.last_seen_at_ms is None else iso_ms(delta.last_seen_at_ms),
        delta.accepted,
        delta.ended,
        delta.held,
        delta.state,
        delta.stored,
        shard,
    )


def _decision(
    id_: str, event: DecisionEvent, created_at: Any, json: Callable[[bytes], Any]
) -> Plain:
    return (
        id_,
        event.request_id,
        event.attempt,
        created_at,
        event.session_id,
        event.pool_id,
        event.resource_id,
        event.reason,
        json(encode(event.candidates)),
        event.degraded,
        event.cause,
        event.waited_ms,
    )


def _minted(requests: Iterable[RequestEvent], form: Form) -> list[Plain]:
    """Return a row for each minted id with a known resource. Of duplicates with the
    same time, the first counts, as in SQL."""
    rows: dict[tuple[str, Any], Plain] = {}
    for event in requests:
        resource = event.resource_id
        if not event.minted or not resource:
            continue
        at, request = form.at(event.created_at_ms), event.id
        account = event.account_id or resource
        tenant, repeated = event.tenant, event.repeats
        for id_ in event.minted:
            row = id_, at, request, resource, account, tenant, repeated
            rows.setdefault((id_, at), row)
    return list(rows.values())
