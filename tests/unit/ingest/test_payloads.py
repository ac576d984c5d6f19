"""Captured bodies from their stream; poison entries lose their bodies."""

import json
from typing import Any

import pytest
import zstandard
from hypothesis import given as drawn
from hypothesis import strategies as st

from libs.common.contracts.events import StreamedPayload
from libs.common.store.interface import ID_CHARS_MAX, DeadLetter
from services.ingest import payloads
from services.ingest.payloads import LARGEST_DATA, PayloadSink, decode_payload
from tests.support.values.telemetry import T0_MS, health_event, streamed

BODY = b"packed \xff"


def entry(more: dict[bytes, bytes] | None = None, **given: Any) -> dict[bytes, bytes]:
    data: dict[str, Any] = {
        "request_id": "r1",
        "created_at_ms": T0_MS,
        "request": {"original_bytes": 9},
        **given,
    }
    fields = {
        b"kind": b"payload",
        b"id": b"r1",
        b"v": b"1",
        b"data": json.dumps(data).encode(),
        b"request": BODY,
    }
    return {**fields, **(more or {})}


def decoded(fields: dict[bytes, bytes]) -> StreamedPayload:
    payload = decode_payload("5-0", fields)
    assert isinstance(payload, StreamedPayload)
    return payload


def test_a_body_is_handed_on_as_it_was_packed() -> None:
    payload = decoded(entry())
    assert (payload.id, payload.kind, payload.entry_id) == ("r1", "payload", "5-0")
    assert payload.bodies == {"request": BODY}
    assert payload.event.response is None


def test_a_body_that_was_dropped_has_none() -> None:
    payload = decoded(entry(response={"original_bytes": 5, "dropped": "no room"}))
    assert payload.bodies == {"request": BODY}
    assert payload.event.response is not None
    assert payload.event.response.dropped == "no room"


@pytest.mark.parametrize(
    ("encoding", "becomes"), [("identity", "zstd"), ("br, identity", "br, zstd")]
)
def test_what_the_gateway_did_not_pack_is_packed(encoding: str, becomes: str) -> None:
    payload = decoded(entry(request={"original_bytes": 9, "encoding": encoding}))
    assert payload.event.request is not None
    assert payload.event.request.encoding == becomes
    assert zstandard.decompress(payload.bodies["request"]) == BODY


def test_a_nul_in_a_note_is_left_out() -> None:
    note = {"original_bytes": 9, "content_type": "a\0b"}
    payload = decoded(entry(request=note))
    assert payload.event.request is not None
    assert payload.event.request.content_type == "ab"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param(entry({b"v": b"2"}), "unknown version", id="version"),
        pytest.param(entry({b"kind": b"payloads"}), "the batch of bodies", id="batch"),
        pytest.param(entry({b"kind": b"request"}), "kind is not payload", id="kind"),
        pytest.param(entry({b"data": b"{"}), "data: Invalid JSON", id="no JSON"),
        pytest.param(entry(surprise=1), "surprise: Extra inputs", id="field"),
        pytest.param(
            entry({b"data": b" " * (LARGEST_DATA + 1)}),
            "data has 65537 bytes",
            id="large note",
        ),
        pytest.param(entry(request_id=""), "request_id is empty", id="no id"),
        pytest.param(
            entry(request_id="x" * (ID_CHARS_MAX + 1)), "request_id", id="long id"
        ),
        pytest.param(entry(created_at_ms=-1), "created_at_ms", id="before all days"),
        pytest.param(entry(created_at_ms=10**15), "created_at_ms", id="after all days"),
        pytest.param(
            entry(request={"original_bytes": -1}), "original_bytes", id="size"
        ),
        pytest.param(
            entry(response={"original_bytes": 1}), "missing field: response",
            id="no body",
        ),
    ],
)  # fmt: skip
def test_poison_says_why_and_keeps_no_body(
    fields: dict[bytes, bytes], reason: str
) -> None:
    letter = decode_payload("5-0", fields)
    assert isinstance(letter, DeadLetter)
    assert letter.reason.startswith(reason)
    assert "packed" not in repr(letter)


def test_a_body_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "LARGEST_BODY", len(BODY) - 1)
    letter = decode_payload("5-0", entry())
    assert isinstance(letter, DeadLetter)
    assert letter.reason.startswith("request has 8 bytes")


@drawn(st.dictionaries(st.sampled_from(sorted(entry())), st.binary(max_size=40)))
def test_whatever_comes_is_a_payload_or_poison(spoiled: dict[bytes, bytes]) -> None:
    found = decode_payload("5-0", entry(spoiled))
    assert isinstance(found, StreamedPayload | DeadLetter)


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
    sink, payload = PayloadSink(store), decoded(entry())
    assert await sink.write([payload, streamed(health_event())]) == 1
    letter = decode_payload("5-0", {})
    assert isinstance(letter, DeadLetter)
    assert await sink.write_dead_letters([letter]) == 1
    assert (store.payloads, store.letters) == ([payload], [letter])
