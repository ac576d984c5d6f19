"""Captured bodies from their stream; poison entries lose their bodies."""

from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given as drawn
from hypothesis import strategies as st

from libs.common.contracts.events import ID_CHARS_MAX, StreamedEvent
from libs.common.contracts.payloads import Note, Payload
from libs.common.redis.capture_batches import packed
from libs.common.store.interface import DeadLetter
from services.ingest import payloads
from services.ingest.payloads import PayloadSink, decode_payloads
from tests.support.values.telemetry import (
    T0_MS,
    as_redis_gives,
    health_event,
    streamed,
)

BODY = b"packed \xff"


def payload(**given: Any) -> Payload:
    known = {"request_id": "r1", "created_at_ms": T0_MS, "request": Note(9)}
    return Payload(**{**known, "request_body": BODY, **given})


def entry(*payloads: Payload) -> dict[bytes, bytes]:
    return as_redis_gives(packed(payloads or (payload(),)))


def decoded(**given: Any) -> Payload:
    (found,) = decode_payloads("5-0", entry(payload(**given)))
    assert isinstance(found, StreamedEvent)
    assert isinstance(found.event, Payload)
    return found.event


def refused(fields: dict[bytes, bytes]) -> DeadLetter:
    (letter,) = decode_payloads("5-0", fields)
    assert isinstance(letter, DeadLetter)
    return letter


def test_a_body_is_handed_on_as_it_was_packed() -> None:
    (found,) = decode_payloads("5-0", entry())
    assert isinstance(found, StreamedEvent)
    assert (found.id, found.kind, found.entry_id) == ("r1", "payload", "5-0")
    assert found.event == payload()


def test_a_body_that_was_dropped_has_none() -> None:
    dropped = Note(5, dropped="no room")
    found = decoded(response=dropped, response_body=b"left over")
    assert (found.request_body, found.response_body) == (BODY, None)
    assert found.response == dropped


@pytest.mark.parametrize(
    ("encoding", "becomes"), [("identity", "zstd"), ("br, identity", "br, zstd")]
)
def test_what_the_gateway_did_not_pack_is_packed(encoding: str, becomes: str) -> None:
    found = decoded(request=Note(9, encoding=encoding))
    assert found.request is not None
    assert found.request.encoding == becomes
    assert zstandard.decompress(found.request_body or b"") == BODY


def test_a_nul_in_a_note_is_left_out() -> None:
    note = Note(9, content_type="a\0b", encoding="b\0r", dropped="n\0o")
    found = decoded(request_id="r\0x", request=note)
    assert found.request_id == "rx"
    assert found.request == Note(9, content_type="ab", encoding="br", dropped="no")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({b"v": b"2"}, "unknown version", id="version"),
        pytest.param({b"kind": b"request"}, "kind is not payloads", id="kind"),
        pytest.param({b"data": b"{"}, "the batch of bodies", id="no batch"),
        pytest.param(
            {b"data": msgspec.msgpack.encode([["r", "1"]])},
            "the batch of bodies", id="type",
        ),
    ],
)  # fmt: skip
def test_a_poison_entry_says_why_and_keeps_no_body(
    fields: dict[bytes, bytes], reason: str
) -> None:
    letter = refused({**entry(), **fields})
    assert letter.reason.startswith(reason)
    assert letter.data == ""


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param({"request_id": ""}, "request_id is empty", id="no id"),
        pytest.param(
            {"request_id": "x" * (ID_CHARS_MAX + 1)}, "request_id", id="long id"
        ),
        pytest.param({"created_at_ms": -1}, "created_at_ms", id="before all days"),
        pytest.param({"created_at_ms": 10**15}, "created_at_ms", id="after all days"),
        pytest.param({"request": Note(-1)}, "original_bytes", id="size"),
        pytest.param({"response": Note(1)}, "missing body: response", id="no body"),
    ],
)
def test_a_poison_payload_says_why_and_keeps_no_body(
    given: dict[str, Any], reason: str
) -> None:
    bad = payload(**given)
    letter, stored = decode_payloads("5-0", entry(bad, payload(request_id="other")))
    assert isinstance(letter, DeadLetter)
    assert letter.reason.startswith(reason)
    assert "packed" not in repr(letter)
    assert letter.data == bad.described().decode()
    assert isinstance(stored, StreamedEvent)  # the others of its entry


def test_a_body_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "LARGEST_BODY", len(BODY) - 1)
    assert refused(entry()).reason.startswith("request has 8 bytes")


def test_each_entry_that_cannot_be_decoded_is_a_letter_of_its_own() -> None:
    spoiled = {**entry(), b"data": b"{"}
    letters = [decode_payloads(id_, spoiled)[0] for id_ in ("5-0", "5-1", "5-0")]
    first, other, again = (each.id for each in letters if isinstance(each, DeadLetter))
    assert first == again != other


@drawn(st.dictionaries(st.sampled_from(sorted(entry())), st.binary(max_size=40)))
def test_whatever_comes_is_a_payload_or_poison(spoiled: dict[bytes, bytes]) -> None:
    for found in decode_payloads("5-0", {**entry(), **spoiled}):
        assert isinstance(found, StreamedEvent | DeadLetter)


class Store:
    def __init__(self) -> None:
        self.payloads: list[Any] = []
        self.letters: list[Any] = []

    async def write_payloads(self, payloads: Any) -> int:
        self.payloads += payloads
        return len(payloads)

    async def write_dead_letters(self, letters: Any) -> int:
        self.letters += letters
        return len(letters)


@pytest.mark.asyncio
async def test_bodies_and_their_poison_go_to_the_store() -> None:
    store = Store()
    sink, letter = PayloadSink(store), refused({})
    (found,) = decode_payloads("5-0", entry())
    assert isinstance(found, StreamedEvent)
    assert await sink.prepare([found, streamed(health_event())])() == 1
    assert await sink.write_dead_letters([letter]) == 1
    assert (store.payloads, store.letters) == ([found.event], [letter])
