"""A batch in progress: its entries, their kinds, and its size."""

from collections.abc import Sequence

from libs.common.redis.capture_batches import Payload, packed, unpacked
from libs.common.redis.telemetry_stream import Entry
from libs.common.store.interface import DeadLetter
from services.ingest.batch import Size
from services.ingest.decode import decode
from services.ingest.gathered import Batch, Fields, itself
from services.ingest.payloads import decode_payload
from tests.support.values.telemetry import as_redis_gives, request_event


def entry(id_: str, request: str = "r") -> Entry:
    data = request_event(request).model_dump_json().encode()
    fields = {b"kind": b"request", b"id": request.encode(), b"v": b"1", b"data": data}
    return Entry(id_, fields)


POISON = Entry("9-0", {b"kind": b"odd"})


def test_events_and_poison_are_kept_apart() -> None:
    batch = Batch(decode)
    batch.add([entry("1-0", "a"), POISON, entry("2-0", "b")], 10)
    assert [event.id for event in batch.events] == ["a", "b"]
    assert [letter.entry_id for letter in batch.dead] == ["9-0"]
    assert [each.id for each in batch.entries] == ["1-0", "9-0", "2-0"]


def test_its_size_grows_with_each_read() -> None:
    batch = Batch(decode)
    assert batch.size == Size()
    one = sum(map(len, entry("1-0").fields.values()))
    batch.add([entry("1-0"), entry("2-0")], asked=2)
    assert batch.size == Size(entries=2, bytes=2 * one, more=True)
    batch.add([entry("3-0")], asked=2)
    assert batch.size == Size(entries=3, bytes=3 * one, more=False)
    batch.add([], asked=2)
    assert (batch.size.entries, batch.size.more) == (3, False)


def test_an_entry_of_many_is_taken_apart() -> None:
    payloads = [Payload(id_, 1) for id_ in ("a", "b")]
    fields = as_redis_gives(packed(payloads))
    batch = Batch(decode_payload, unpacked)
    batch.add([Entry("5-0", fields)], 1)
    assert [event.id for event in batch.events] == ["a", "b"]
    assert {event.entry_id for event in batch.events} == {"5-0"}
    assert batch.size.entries == 1
    # Of an event that the database rejects, its fields and not the whole entry.
    assert batch.fields_of(batch.events[1])[b"id"] == b"b"


def test_the_fields_that_an_event_was_read_from() -> None:
    first, second = entry("1-0", "a"), entry("2-0", "b")
    batch = Batch(decode)
    batch.add([first, second], 2)
    assert batch.fields_of(batch.events[1]) is second.fields


def test_an_event_that_lost_its_id_has_the_whole_entry() -> None:
    def parts(fields: Fields) -> Sequence[Fields]:
        return ({**fields, b"id": b"another"},)

    batch = Batch(decode, itself)
    batch.add([entry("1-0")], 1)
    batch._parts = parts
    assert batch.fields_of(batch.events[0]) == entry("1-0").fields


def test_nothing_is_poison_of_nothing() -> None:
    batch = Batch(lambda id_, _: DeadLetter(id_, id_, None, None, "", "", 0))
    batch.add([], 5)
    assert (batch.events, batch.dead, batch.entries) == ([], [], [])
