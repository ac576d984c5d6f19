"""Do the ledger's counts agree? Pure.

With each heartbeat a gateway reports how many requests it accepted, how many of these
have ended, and how many of the ended ones it still holds because it does not know that
they are stored. SQL counts the stored requests of each gateway. Reports and SQL are
read at different moments, so they are compared only in ways that no delay can falsify:

- lost: SQL has every request that a gateway knew to be stored *before* SQL was read;
- doubled: SQL never has more requests than a report made *after* SQL was read accepts;
- left: once a gateway's counts are closed and no gateway holds records, no request is
  outstanding.

A gateway of another shard reports to the Redis of that shard, whose routers judge it.

A gateway that is silent and whose journal no other gateway has taken over is
unverified: its journal may hold records that exist nowhere else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from libs.common.redis.keys import DEFAULT_NAMESPACE
from libs.common.routing.types import Reported
from libs.common.store.interface import Book

CLOSED_FOR_MS = 10_000  # by then the gateway that closed the counts has reported
MISSING_MS = 3_600_000  # by then a journal that was not found is lost


@dataclass(frozen=True, slots=True)
class Account:
    """One gateway's requests by where their records are; the parts add up to
    `accepted`. A request in SQL was accepted, even if the gateway's report is older."""

    id: str
    state: str  # running, silent, closed; other: what it is, its own shard knows
    accepted: int
    stored: int
    dead_lettered: int
    in_flight: int
    pending: int
    held: int
    seen_ms: int | None
    shard: str = DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Finding:
    """Proven errors, and the gateways that cannot be judged now."""

    problems: tuple[str, ...]
    unverified: tuple[str, ...]


def accounts(
    reports: Mapping[str, Reported],
    books: Iterable[Book],
    silent_ms: int,
    shard: str = DEFAULT_NAMESPACE,
) -> tuple[Account, ...]:
    """Combines both sources. `reports` were read before `books`. A gateway whose last
    report is `silent_ms` old is silent. `shard`: whose reports these are; of gateways
    of other shards only SQL is known."""
    known = {book.id: book for book in books}
    for id_ in reports:
        known.setdefault(id_, Book(id_, None, None, 0, 0, 0, "running", 0, 0, shard))
    return tuple(
        _account(book, reports.get(id_), silent_ms, shard)
        for id_, book in known.items()
    )


def _account(
    book: Book, report: Reported | None, silent_ms: int, shard: str
) -> Account:
    accepted, ended, held = book.accepted, book.ended, book.held
    if report is not None:
        accepted = max(accepted, report.books.accepted)
        ended = max(ended, report.books.ended)
        held = report.books.held
    state = _state(book, report, silent_ms)
    if state == "silent" and report is None and book.shard != shard:
        state = "other"
    here = book.stored + book.dead
    accepted = max(accepted, here)
    open_ = 0 if state == "closed" else max(0, accepted - ended)
    in_flight = min(open_, accepted - here)
    return Account(
        id=book.id,
        state=state,
        accepted=accepted,
        stored=book.stored,
        dead_lettered=book.dead,
        in_flight=in_flight,
        pending=accepted - here - in_flight,
        held=held,
        seen_ms=report.at_ms if report else _ms(book.last_seen_at),
        shard=shard if report else book.shard or shard,
    )


def _state(book: Book, report: Reported | None, silent_ms: int) -> str:
    # The sum of older gateways (`*`) and gateways that never reported have no report;
    # all of their requests are stored.
    if book.state == "closed" or (report is None and book.last_seen_at is None):
        return "closed"
    return "running" if report and report.age_ms < silent_ms else "silent"


def judge(
    found: Iterable[Account],
    reports: Mapping[str, Reported],
    depth: int,
    now_ms: int,
    shard: str = DEFAULT_NAMESPACE,
) -> Finding:
    """Applies the first and the last of the rules above. `shard`: whose `reports` and
    `depth` these are. What others did not store is in their own Redis and journals."""
    listed = [account for account in found if account.shard == shard]
    quiet = depth == 0 and not any(_may_bring(a, now_ms) for a in listed)
    problems: list[str] = []
    unverified: list[str] = []
    for account in listed:
        outstanding = account.pending + account.in_flight
        age_ms = now_ms - (account.seen_ms or 0)
        if account.state == "running":
            problems += _lost(account, reports[account.id])
        elif account.state == "silent" and age_ms < MISSING_MS:
            unverified.append(account.id)
        elif account.state == "silent" and outstanding:
            problems.append(f"{account.id}: died with {outstanding} requests")
        elif outstanding and quiet and age_ms > CLOSED_FOR_MS:
            problems.append(f"{account.id}: {outstanding} requests are nowhere")
    return Finding(tuple(problems), tuple(unverified))


def _may_bring(account: Account, now_ms: int) -> bool:
    """May it hold a record that exists nowhere else?"""
    if account.state == "silent":
        return now_ms - (account.seen_ms or 0) < MISSING_MS
    return account.state == "running" and account.held > 0


def _lost(account: Account, report: Reported) -> list[str]:
    known_stored = report.books.ended - report.books.held
    missing = known_stored - account.stored - account.dead_lettered
    return [f"{account.id}: {missing} stored requests are gone"] if missing > 0 else []


def doubled(
    earlier: Iterable[Account],
    between: Mapping[str, Reported],
    later: Mapping[str, Reported],
) -> tuple[str, ...]:
    """Applies the second rule. `between` was read after `earlier`, and `later` after
    `between`, so a report that differs was made after SQL was read."""
    problems = []
    for account in earlier:
        before, after = between.get(account.id), later.get(account.id)
        if before is None or after is None or after.at_ms <= before.at_ms:
            continue
        surplus = account.stored + account.dead_lettered - after.books.accepted
        if surplus > 0:
            problems.append(f"{account.id}: {surplus} requests more than it accepted")
    return tuple(problems)


def _ms(text: str | None) -> int | None:
    return None if text is None else int(datetime.fromisoformat(text).timestamp() * 1e3)
