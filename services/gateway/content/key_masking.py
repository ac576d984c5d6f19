"""An upstream's error as it may be passed on: without the key it was sent. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from libs.common.headers import Header
from libs.common.providers.key_echoes import SHORTEST, SentKey
from services.gateway import errors
from services.gateway.capture.packing import opened
from services.gateway.content.headers import CODINGS
from services.gateway.content.response_facts import Facts

LARGEST_OPENED = 4_194_304  # bytes of an error that are searched
_JSON: Header = (b"content-type", b"application/json")
_NAMES = ("model", "service_tier", "response_id")


class ErrorAnswer(NamedTuple):
    """`plain` is its body opened, for its facts."""

    headers: list[Header]
    body: bytes
    plain: bytes


def without_key(
    status: int, headers: Sequence[Header], body: bytes, sent: SentKey
) -> ErrorAnswer:
    """The answer itself when it does not show the key; with the key replaced, and
    not packed any more, when it does. One whose coding nobody here can open is
    replaced: what it shows is not known."""
    shown = [(name, sent.hidden_bytes(value)) for name, value in headers]
    codings = _codings(headers)
    plain = _opened(body, codings)
    if plain is None:
        named = b", ".join(codings).decode("latin-1")
        envelope = errors.unreadable_error(status, sent.hidden(named)).body()
        headers = [*_without(shown, b"content-encoding", b"content-type"), _JSON]
        return ErrorAnswer(headers, envelope, envelope)
    hidden = sent.hidden_bytes(plain)
    if hidden == plain:
        return ErrorAnswer(shown, body, plain)
    return ErrorAnswer(_without(shown, b"content-encoding"), hidden, hidden)


def hide(facts: Facts, sent: SentKey) -> None:
    """What an answer told of itself, without the key."""
    key = sent.text
    if facts.error_message is not None:
        facts.error_message = sent.hidden(facts.error_message)
    if facts.error_code is not None:
        facts.error_code = sent.hidden(facts.error_code)
    if len(key) < SHORTEST:
        return
    for name in _NAMES:
        text = getattr(facts, name)
        if text is not None and key in text:
            setattr(facts, name, sent.hidden(text))


def _opened(body: bytes, codings: Sequence[bytes]) -> bytes | None:
    """None when nobody here can open it. The body itself when it is not what its
    coding says: clients cannot open it either. Of a bomb its beginning."""
    if not codings or not body:
        return body
    if len(codings) > 1 or codings[0] not in CODINGS:
        return None
    plain = opened(body, codings[0], LARGEST_OPENED)
    return body if plain is None else plain


def _codings(headers: Sequence[Header]) -> list[bytes]:
    values = [value for name, value in headers if name == b"content-encoding"]
    listed = [part.strip().lower() for value in values for part in value.split(b",")]
    return [coding for coding in listed if coding and coding != b"identity"]


def _without(headers: Sequence[Header], *dropped: bytes) -> list[Header]:
    return [header for header in headers if header[0] not in dropped]
