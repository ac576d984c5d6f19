"""Batches: what is in one, when it is due, how much to read next."""

import pytest

from libs.common.contracts.events import encode
from libs.common.contracts.payloads import Payload
from libs.common.redis.capture_batches import packed
from libs.common.redis.telemetry_stream import Entry
from libs.common.store.interface import DeadLetter
from services.ingest.batch import (
    BATCH_BYTES,
    FEW,
    IDLE_S,
    OLDER,
    READ_ENTRIES,
    READ_EVERY_S,
    SHORTEST_PAUSE_S,
    Batch,
    BatchRule,
    Size,
)
from services.ingest.decode import decode_entry
from services.ingest.payloads import decode_payloads
from tests.support.values.telemetry import as_redis_gives, request_event

RULE = BatchRule(size=10, max_age_s=0.2)


@pytest.mark.parametrize(
    ("size", "age_s", "due"),
    [
        pytest.param(Size(), 99, False, id="empty, however old"),
        pytest.param(Size(1), 0.1, False, id="small and young"),
        pytest.param(Size(1), 0.2, True, id="old"),
        pytest.param(Size(10), 0, True, id="full"),
        pytest.param(Size(11), 0, True, id="overfull"),
        pytest.param(Size(49, more=True), 0, False, id="grows with a backlog"),
        pytest.param(Size(50, more=True), 0, True, id="but not for ever"),
        pytest.param(Size(49, more=True), 1.0, True, id="nor beyond its age"),
        pytest.param(Size(FEW), 0.2, True, id="few, which are cheap"),
        pytest.param(Size(1, BATCH_BYTES, more=True), 0, True, id="few large ones"),
    ],
)
def test_a_batch_is_due_when_big_or_old(size: Size, age_s: float, due: bool) -> None:
    assert RULE.due(size, age_s, storing=True) is due


def test_it_grows_only_while_it_would_wait() -> None:
    full = Size(10, more=True)
    assert not RULE.due(full, 0, storing=True)
    assert RULE.due(full, 0, storing=False)
    assert not RULE.due(Size(9, more=True), 0, storing=False)


@pytest.mark.parametrize(
    ("entries", "age_s", "due"),
    [(3, 0.2, True), (4, 0.2, False), (4, 0.2 * OLDER, True)],
)
def test_more_than_few_entries_wait_longer(
    entries: int, age_s: float, due: bool
) -> None:
    rule = BatchRule(size=10, max_age_s=0.2, few=3)
    assert rule.due(Size(entries), age_s, storing=True) is due
    assert (rule.pause_s(Size(entries), 0.19) > 0.02) is (entries > 3)


def test_reads_grow_to_their_bound() -> None:
    large = BatchRule(size=500, max_age_s=0.2)
    assert large.room(Size()) == large.first
    assert large.room(Size(64, 64_000)) == READ_ENTRIES
    assert [RULE.room(Size(n, n)) for n in (0, 30, 49, 50)] == [10, 20, 1, 1]


def test_a_read_asks_for_what_fits_by_the_mean_size_so_far() -> None:
    large = BatchRule(size=500, max_age_s=0.2)
    assert large.room(Size(64, BATCH_BYTES // 2)) == 64
    assert large.room(Size(64, BATCH_BYTES)) == 1


def test_only_an_empty_batch_waits_for_an_entry() -> None:
    assert RULE.wait_s(Size()) == IDLE_S
    assert RULE.wait_s(Size(1)) == RULE.wait_s(Size(1, more=True)) == 0


@pytest.mark.parametrize(
    ("size", "age_s", "pause_s"),
    [
        pytest.param(Size(), 99, 0, id="empty: the read waits"),
        pytest.param(Size(1), 0.05, 0.15, id="until it is due"),
        pytest.param(Size(1), 0.1999, SHORTEST_PAUSE_S, id="at least a moment"),
        pytest.param(Size(1, more=True), 0, 0, id="none with a backlog"),
    ],
)
def test_entries_accumulate_between_reads(
    size: Size, age_s: float, pause_s: float
) -> None:
    assert RULE.pause_s(size, age_s) == pytest.approx(pause_s)


def test_a_batch_that_may_be_old_is_read_now_and_then() -> None:
    assert BatchRule(10, 60).pause_s(Size(1), 0) == READ_EVERY_S


# Batches ---------------------------------------------------------------------


def entry(id_: str, request: str = "r") -> Entry:
    data = encode(request_event(request))
    fields = {b"kind": b"request", b"id": request.encode(), b"v": b"1", b"data": data}
    return Entry(id_, fields)


POISON = Entry("9-0", {b"kind": b"odd"})


def test_events_and_poison_are_kept_apart() -> None:
    batch = Batch(decode_entry)
    batch.add([entry("1-0", "a"), POISON, entry("2-0", "b")], 10)
    assert [event.id for event in batch.events] == ["a", "b"]
    assert [letter.entry_id for letter in batch.dead] == ["9-0"]
    assert batch.ids == ["1-0", "9-0", "2-0"]


def test_it_is_as_old_as_its_oldest_entry() -> None:
    batch = Batch(decode_entry)
    batch.add([entry("20-0", "a"), entry("30-0", "b")], 10)
    batch.add([entry("9-1", "c")], 10)  # claimed
    assert batch.oldest_ms == 9


def test_its_size_grows_with_each_read() -> None:
    batch = Batch(decode_entry)
    assert batch.size == Size()
    one = sum(map(len, entry("1-0").fields.values()))
    batch.add([entry("1-0"), entry("2-0")], requested=2)
    assert batch.size == Size(entries=2, bytes=2 * one, more=True)
    batch.add([entry("3-0")], requested=2)
    assert batch.size == Size(entries=3, bytes=3 * one, more=False)
    batch.add([], requested=2)
    assert (batch.size.entries, batch.size.more) == (3, False)


def test_an_entry_of_many_is_taken_apart() -> None:
    payloads = [Payload(id_, 1) for id_ in ("a", "b")]
    fields = as_redis_gives(packed(payloads))
    batch = Batch(decode_payloads)
    batch.add([Entry("5-0", fields)], 1)
    assert [event.id for event in batch.events] == ["a", "b"]
    assert {event.entry_id for event in batch.events} == {"5-0"}
    assert batch.size.entries == 1


def test_nothing_is_poison_of_nothing() -> None:
    batch = Batch(lambda id_, _: (DeadLetter(id_, id_, None, None, "", "", 0),))
    batch.add([], 5)
    assert (batch.events, batch.dead, batch.ids) == ([], [], [])
