"""Do the books agree? Pure.

A gateway reports with each beat what it accepted, what of that has ended, and how
many of the ended it still holds, as it does not know them to be stored. SQL counts
what is stored of each gateway. Neither is read at the other's moment, so they are
compared only in ways that no delay can make wrong:

- lost: what a gateway knew to be stored *before* SQL was asked is in SQL;
- doubled: SQL never holds more than a report made *after* it was asked accepts;
- left: once a gateway's books are closed and nobody holds anything, nothing is
  outstanding.

Who was not heard of and whose journal nobody took over yet is unverified: it may hold
requests that nobody else knows of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from libs.common.routing.types import Reported
from libs.common.store.interface import Book

SILENT_MS = 5_000
CLOSED_FOR_MS = 10_000  # then whoever closed the books has reported what it holds
MISSING_MS = 3_600_000  # a journal that nobody found by then is gone
THE_REST = "*"


@dataclass(frozen=True, slots=True)
class Account:
    """One gateway's requests by where their record is. They add up to `accepted`:
    what SQL has was accepted, even if the report that says so is still to come."""

    id: str
    state: str  # running, silent, closed
    accepted: int
    stored: int
    dead_lettered: int
    in_flight: int
    pending: int
    held: int
    seen_ms: int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong for certain, and whose books cannot be judged now."""

    problems: tuple[str, ...]
    unverified: tuple[str, ...]


def accounts(
    reports: Mapping[str, Reported], books: Iterable[Book]
) -> tuple[Account, ...]:
    """Both sources put together. `reports` were read before `books`."""
    known = {book.id: book for book in books}
    for id_ in reports:
        known.setdefault(id_, Book(id_, None, None, 0, 0, 0, "running", 0, 0))
    return tuple(_account(book, reports.get(id_)) for id_, book in known.items())


def _account(book: Book, report: Reported | None) -> Account:
    accepted, ended, held = book.accepted, book.ended, book.held
    if report is not None:
        accepted = max(accepted, report.books.accepted)
        ended = max(ended, report.books.ended)
        held = report.books.held
    state = _state(book, report)
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
    )


def _state(book: Book, report: Reported | None) -> str:
    # Nobody reports for the rest, or for who never did; all they have is stored.
    if book.state == "closed" or (report is None and book.last_seen_at is None):
        return "closed"
    return "running" if report and report.age_ms < SILENT_MS else "silent"


def judge(
    found: Iterable[Account],
    reports: Mapping[str, Reported],
    depth: int,
    now_ms: int,
) -> Finding:
    """By the first and the last of the rules above."""
    listed = list(found)
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
    """Could it still have a record that is in no other place?"""
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
    """By the second rule. `between` was read after `earlier`, and `later` after that:
    a report that is new since then was made after SQL was asked."""
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
