"""Removes the upstream key from upstream errors before clients see them. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from libs.common.headers import Header
from libs.common.providers.key_echoes import SHORTEST, SentKey
from services.gateway import errors
from services.gateway.content.coding import decompressed
from services.gateway.content.headers import CODINGS, JSON_TYPE
from services.gateway.content.response_facts import Facts

LARGEST_OPENED = 4_194_304  # bytes of a decompressed error that are searched


class ErrorAnswer(NamedTuple):
    """An error that is safe to pass on. `plain` is its body, decompressed."""

    headers: list[Header]
    body: bytes
    plain: bytes


def without_key(
    status: int, headers: Sequence[Header], body: bytes, sent: SentKey
) -> ErrorAnswer:
    """The answer unchanged if it does not contain the key; otherwise decompressed and
    with the key replaced. An answer in a coding that cannot be decompressed is
    replaced by an error of the gateway, because it may contain the key."""
    masked = [(name, sent.hidden_bytes(value)) for name, value in headers]
    codings = _codings(headers)
    plain = _plain(body, codings)
    if plain is None:
        named = b", ".join(codings).decode("latin-1")
        envelope = errors.unreadable_error(status, sent.hidden(named)).body()
        headers = [*_without(masked, b"content-encoding", b"content-type"), JSON_TYPE]
        return ErrorAnswer(headers, envelope, envelope)
    hidden = sent.hidden_bytes(plain)
    if hidden == plain:
        return ErrorAnswer(masked, body, plain)
    return ErrorAnswer(_without(masked, b"content-encoding"), hidden, hidden)


def hide(facts: Facts, sent: SentKey) -> None:
    """Replaces the key in the facts of an answer. Runs for each request, so the common
    case is three substring searches."""
    if facts.error_message is not None:
        facts.error_message = sent.hidden(facts.error_message)
    if facts.error_code is not None:
        facts.error_code = sent.hidden(facts.error_code)
    key = sent.text
    if len(key) < SHORTEST:
        return
    model, tier, id_ = facts.model, facts.service_tier, facts.response_id
    if model is not None and key in model:
        facts.model = sent.hidden(model)
    if tier is not None and key in tier:
        facts.service_tier = sent.hidden(tier)
    if id_ is not None and key in id_:
        facts.response_id = sent.hidden(id_)


def _plain(body: bytes, codings: Sequence[bytes]) -> bytes | None:
    """The body decompressed, cut at `LARGEST_OPENED` + 1. None when the coding is
    unknown; the body itself when it is corrupt, because clients cannot decompress it
    either."""
    if not codings or not body:
        return body
    if len(codings) > 1 or codings[0] not in CODINGS:
        return None
    plain = decompressed(body, codings[0], LARGEST_OPENED)
    return body if plain is None else plain


def _codings(headers: Sequence[Header]) -> list[bytes]:
    values = [value for name, value in headers if name == b"content-encoding"]
    listed = [part.strip().lower() for value in values for part in value.split(b",")]
    return [coding for coding in listed if coding and coding != b"identity"]


def _without(headers: Sequence[Header], *dropped: bytes) -> list[Header]:
    return [header for header in headers if header[0] not in dropped]
