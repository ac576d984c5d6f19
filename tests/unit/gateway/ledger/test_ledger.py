"""What is journaled, and what Redis is told: in that order."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from libs.common.errors import RedisAway
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Owner, Release
from libs.common.upstream_answers.verdicts import Verdict, VerdictKind
from services.gateway.capture.capture import Budget
from services.gateway.capture.recorder import CaptureRecorder, Inbox
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.segments import Kind
from services.gateway.ledger.lease_head import lease_head
from services.gateway.ledger.ledger import Ledger
from services.gateway.ledger.record import Record

pytestmark = pytest.mark.asyncio
EVENT = b'{"id":"r"}'


class Redis:
    """Routing functions as far as a ledger calls them, in order."""

    def __init__(self) -> None:
        self.away = False
        self.said: list[tuple[Any, ...]] = []

    def report(self, release: Release, failed: Callable[[], None]) -> None:
        self.said.append(("report", release))
        if self.away:
            failed()

    async def learn_account(self, resource_id: str, account_id: str) -> bool:
        self.said.append(("account", resource_id, account_id))
        if self.away:
            raise RedisAway
        return True

    async def adopt(self, sessions: Any = None, ids: Any = None) -> int:
        self.said.append(("adopt", ids))
        if self.away:
            raise RedisAway
        return len(ids)


class Books:
    def __init__(self, root: Path) -> None:
        self.redis = Redis()
        self.journal = Journal(root, "gw", 0, 1 << 24, 1 << 18)
        self.alone: list[Release] = []
        self.inbox = Inbox(Budget(1 << 20))
        self.ledger = Ledger(
            cast(RoutingFunctions, self.redis),
            self.journal,
            self.alone.append,
            CaptureRecorder(1000, self.inbox, None),
        )

    def written(self) -> list[tuple[Kind, Any]]:
        return [
            (record.kind, json.loads(record.data))
            for record in self.journal.read(0, self.journal.written)
            if record.kind in (Kind.REQUEST, Kind.DECISION)
        ]


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


def release(event: bytes | None = EVENT, verdict: VerdictKind = "ok") -> Release:
    return Release("r", "gw", "a", Verdict(kind=verdict), "", (), "m", event, "")


def record() -> Record:
    return Record("r", 1, "POST", "/v1/responses", "gw")


async def test_an_admitted_request_is_journaled_before_anything_else(
    books: Books,
) -> None:
    assert books.ledger.accepted("r", record()) == lease_head(record())
    assert books.journal.counters.accepted == 1
    assert books.redis.said == []


async def test_an_event_is_journaled_before_redis_is_told(books: Books) -> None:
    books.ledger.accepted("r", record())
    books.ledger.ended(release(), alone=False)
    assert books.written() == [(Kind.REQUEST, {"id": "r"})]
    assert books.redis.said == [("report", release())]
    assert books.journal.counters.ended == 1
    assert books.journal.unsent_from is None
    assert books.alone == []


async def test_an_event_that_redis_did_not_get_is_sent_later(books: Books) -> None:
    books.redis.away = True
    books.ledger.accepted("r", record())
    books.ledger.ended(release(), alone=False)
    assert books.journal.unsent_from is not None


async def test_a_release_without_an_event_is_an_empty_one(books: Books) -> None:
    books.ledger.ended(release(None), alone=False)
    assert books.written() == [(Kind.REQUEST, {})]


@pytest.mark.parametrize("away", [False, True])
async def test_a_verdict_that_does_not_arrive_is_no_loss(
    books: Books, away: bool
) -> None:
    books.redis.away = away
    books.ledger.report(release(None), alone=False)
    assert books.redis.said == [("report", release(None))]
    assert books.written() == []
    assert books.journal.unsent_from is None


async def test_what_was_decided_without_redis_is_judged_here(books: Books) -> None:
    books.ledger.report(release(None, "fault"), alone=True)
    books.ledger.ended(release(), alone=True)
    assert books.alone == [release(None, "fault"), release()]
    assert len(books.redis.said) == 2  # Redis may be back


@pytest.mark.parametrize("alone", [False, True])
async def test_a_decision_made_here_is_to_be_sent(books: Books, alone: bool) -> None:
    decided = books.ledger.decided_alone if alone else books.ledger.decided
    decided("d", b'{"attempt":1}')
    assert [kind for kind, _ in books.written()] == [Kind.DECISION]
    assert (books.journal.unsent_from is not None) is alone


@pytest.mark.parametrize("away", [False, True])
async def test_an_account_is_reported_once(books: Books, away: bool) -> None:
    books.redis.away = away
    for _ in range(2):
        books.ledger.account_named("a", "org")
    books.ledger.account_named("b", "org")
    await asyncio.sleep(0)
    assert books.redis.said == [("account", "a", "org"), ("account", "b", "org")]
    await asyncio.sleep(0)  # a failure is nobody's


@pytest.mark.parametrize("away", [False, True])
async def test_ids_are_told_while_their_answer_goes_on(
    books: Books, away: bool
) -> None:
    books.redis.away = away
    owner = Owner("a", "account", "")
    books.ledger.minted_early(("i", "j"), owner)
    await asyncio.sleep(0)
    assert books.redis.said == [("adopt", {"i": owner, "j": owner})]
    await asyncio.sleep(0)
