"""Recovering the journals of crashed gateways."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from libs.common.contracts.events import GatewayEvent, RequestEvent
from libs.common.errors import RedisAway
from services.gateway.ledger.journal import recovery
from services.gateway.ledger.journal.folder import locked_if_orphaned
from services.gateway.ledger.journal.journal import STREAM_KINDS, Journal
from services.gateway.ledger.journal.recovery import JournalRecovery
from services.gateway.ledger.journal.segments import Kind
from services.gateway.ledger.lease_head import lease_head
from services.gateway.ledger.record import Record as RequestRecord

pytestmark = pytest.mark.asyncio

STARTED_MS = 1_700_000_000_000
Begin = Callable[[str], Journal]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    begun: list[Journal] = []

    def journal(gateway_id: str) -> Journal:
        begun.append(Journal(tmp_path, gateway_id, STARTED_MS, 1 << 26, 1 << 16))
        return begun[-1]

    yield journal
    for each in begun:
        each.close()


def die(journal: Journal) -> None:
    """As after `kill -9`: the lock is released, the files remain."""
    journal.folder.close(empty=False)


def head(request_id: str, gateway_id: str) -> bytes:
    return lease_head(
        RequestRecord(
            id=request_id,
            created_at_ms=STARTED_MS,
            method="POST",
            path="/v1/responses",
            gateway_id=gateway_id,
            session_id="s",
        )
    )


def adopted(journal: Journal) -> dict[str, tuple[str, bytes]]:
    """Events by id, as they will be sent."""
    return {
        record.id: (STREAM_KINDS[record.kind], record.data)
        for record in journal.read(0, journal.written)
        if record.kind in STREAM_KINDS
    }


async def test_its_events_are_told_and_its_requests_interrupted(
    tmp_path: Path, begin: Begin
) -> None:
    dead = begin("dead")
    dead.accepted("ended", head("ended", "dead"))
    dead.ended("ended", b'{"id":"ended"}')
    dead.accepted("cut", head("cut", "dead"))
    first = b'{"request_id":"cut","attempt":1,"resource_id":"openai-1"}'
    second = b'{"request_id":"cut","attempt":2,"resource_id":"openai-2"}'
    dead.decided("d1", first)
    dead.decided("d2", second)
    die(dead)

    heir = begin("heir")
    assert await JournalRecovery(tmp_path, heir).look() == 1

    told = adopted(heir)
    assert told["ended"] == ("request", b'{"id":"ended"}')
    assert told["d1"] == ("decision", first)
    event = msgspec.json.decode(told["cut"][1], type=RequestEvent)
    assert (event.outcome, event.error_code) == ("interrupted", "gateway_lost")
    assert (event.resource_id, event.attempts, event.session_id) == ("openai-2", 2, "s")
    assert (event.id, event.created_at_ms) == ("cut", STARTED_MS)
    last = msgspec.json.decode(told["dead:closed"][1], type=GatewayEvent)
    assert (last.accepted, last.ended, last.held, last.state) == (2, 2, 0, "closed")
    assert last.started_at_ms == STARTED_MS
    assert heir.unsent_from is not None
    assert not (tmp_path / "dead").exists()
    assert heir.counters.accepted == 0


async def test_who_lives_is_left_alone(tmp_path: Path, begin: Begin) -> None:
    alive, heir = begin("alive"), begin("heir")
    alive.ended("r1", b"{}")
    assert await JournalRecovery(tmp_path, heir).look() == 0
    assert (tmp_path / "alive").exists()
    assert adopted(heir) == {}


async def test_an_heir_that_dies_leaves_it_all_to_the_next(
    tmp_path: Path, begin: Begin
) -> None:
    dead, heir, next_ = begin("dead"), begin("heir"), begin("next")
    dead.accepted("cut", head("cut", "dead"))
    die(dead)
    await JournalRecovery(tmp_path, heir).look()
    heir.ended("own", b"{}")
    die(heir)

    assert await JournalRecovery(tmp_path, next_).look() == 1

    told = adopted(next_)
    assert set(told) == {"cut", "dead:closed", "own", "heir:closed"}
    last = json.loads(told["heir:closed"][1])
    assert (last["accepted"], last["ended"]) == (1, 1)  # not the one it adopted


async def test_two_heirs_do_not_share(tmp_path: Path, begin: Begin) -> None:
    dead, one, two = begin("dead"), begin("one"), begin("two")
    dead.ended("r1", b"{}")
    die(dead)
    with locked_if_orphaned(tmp_path / "dead") as ours:
        assert ours
        assert await JournalRecovery(tmp_path, one).look() == 0
    assert await JournalRecovery(tmp_path, one).look() == 1
    assert await JournalRecovery(tmp_path, two).look() == 0


async def test_what_was_safe_is_not_told_again(tmp_path: Path, begin: Begin) -> None:
    dead, heir = begin("dead"), begin("heir")
    dead.ended("stored", b"{}")
    dead.free_before(dead.written)
    dead.check()
    dead.ended("new", b"{}")
    die(dead)
    await JournalRecovery(tmp_path, heir).look()
    assert set(adopted(heir)) == {"new", "dead:closed"}


async def test_who_did_nothing_leaves_its_last_word(
    tmp_path: Path, begin: Begin
) -> None:
    dead, heir = begin("dead"), begin("heir")
    die(dead)
    assert await JournalRecovery(tmp_path, heir).look() == 1
    assert set(adopted(heir)) == {"dead:closed"}


async def test_an_estate_waits_while_there_is_no_room(
    tmp_path: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, heir = begin("dead"), begin("heir")
    for number in range(recovery.AT_ONCE * 2):
        dead.decided(f"d{number}", b"{}")
    die(dead)
    looks = 0

    async def pause(_: float) -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr(Journal, "crowded", property(lambda _: looks < 3))
    await JournalRecovery(tmp_path, heir).look()
    assert looks >= 3
    assert len(adopted(heir)) == recovery.AT_ONCE * 2 + 1


async def test_what_cannot_be_read_is_said_once_and_left(
    tmp_path: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, heir = begin("dead"), begin("heir")
    dead.ended("r1", b"{}")
    die(dead)

    def broken(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(recovery, "read_crashed_journal", broken)
    recovering = JournalRecovery(tmp_path, heir)
    assert (await recovering.look(), await recovering.look()) == (0, 0)
    monkeypatch.undo()
    assert await recovering.look() == 1


async def test_nothing_to_find(tmp_path: Path, begin: Begin) -> None:
    heir = begin("heir")
    assert await JournalRecovery(tmp_path / "nowhere", heir).look() == 0
    (tmp_path / "stray-file").write_text("")
    (tmp_path / "foreign-folder").mkdir()
    assert await JournalRecovery(tmp_path, heir).look() == 0


async def test_decisions_that_make_no_sense_are_no_route(begin: Begin) -> None:
    dead = begin("dead")
    dead.accepted("cut", head("cut", "dead"))
    dead.decided("d1", b'{"request_id":')
    dead.decided("d2", b'{"request_id":"cut","attempt":1,"resource_id":null}')
    crashed = recovery.read_crashed_journal(dead.folder.path)
    ((_, event),) = crashed.interrupted(STARTED_MS)
    assert msgspec.json.decode(event, type=RequestEvent).resource_id is None
    assert Kind.DECISION in STREAM_KINDS


class Leases:
    """The leases in Redis, which can be made unreachable."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.dropped: list[tuple[str, list[str]]] = []

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int:
        if self.away:
            raise RedisAway
        self.dropped.append((gateway_id, request_ids))
        return len(request_ids)


@pytest.mark.parametrize("away", [False, True])
async def test_leases_of_what_was_open_go_with_the_journal(
    tmp_path: Path, begin: Begin, *, away: bool
) -> None:
    dead, heir = begin("dead"), begin("heir")
    for request_id in ("ended", "cut"):
        dead.accepted(request_id, head(request_id, "dead"))
    dead.ended("ended", head("ended", "dead") + b"}")
    die(dead)
    leases = Leases(away=away)
    assert await JournalRecovery(tmp_path, heir, leases).look() == 1
    assert leases.dropped == ([] if away else [("dead", ["cut"])])
