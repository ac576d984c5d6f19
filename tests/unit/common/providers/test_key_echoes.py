"""A key in any spelling, and text that resembles one."""

import html
import json
import time
from urllib.parse import quote

import pytest

from libs.common.providers.key_echoes import LONGEST_ESCAPED, MARK, NO_KEY, SentKey

KEY = r"sk-Proj_a/b\c&d<e>+0123=%~"
SENT = SentKey(KEY)
ESCAPED = "".join(f"\\u{ord(c):04x}" for c in KEY)

SPELLINGS = {
    "plain": KEY,
    "bearer": f"Bearer {KEY}",
    "json": json.dumps(KEY),
    "json, slashes too": json.dumps(KEY).replace("/", r"\/"),
    "json in json": json.dumps(json.dumps(KEY)),
    "unicode escapes": ESCAPED,
    "unicode escapes, capital": ESCAPED.replace("u00", "U00").replace("U", "u").upper()
    .replace("\\U", "\\u"),
    "unicode escapes in json": json.dumps(ESCAPED),
    "html-safe json": json.dumps(KEY).replace("<", "\\u003c").replace("&", "\\u0026"),
    "url": quote(KEY, safe=""),
    "url, all of it": "".join(f"%{ord(c):02X}" for c in KEY),
    "url, twice": quote(quote(KEY, safe=""), safe=""),
    "html": html.escape(KEY),
    "html, numbers": "".join(f"&#{ord(c)};" for c in KEY),
    "html, hexadecimal": "".join(f"&#x{ord(c):X};" for c in KEY),
}  # fmt: skip


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_a_key_is_hidden_in_every_spelling(spelled: str) -> None:
    text = f"Incorrect key {spelled}, and {spelled}."
    hidden = SENT.hidden(text)
    assert hidden.count(MARK) == 2
    assert hidden.startswith("Incorrect key ")
    assert not any(len(part) > 9 for part in hidden.replace(MARK, "").split())
    assert SENT.hidden_bytes(text.encode()) == hidden.encode()
    assert SENT.shown_in(text)


@pytest.mark.parametrize(
    "text", ["", "sk-Proj_a/b", KEY[:-1], KEY[1:], KEY.lower(), "&amp; %20 \\u0041 \\/"]
)
def test_what_is_not_the_key_stays(text: str) -> None:
    assert SENT.hidden(text) == text
    assert SENT.masked(text.encode()) == text.encode()
    assert not SENT.shown_in(text)


@pytest.mark.parametrize(
    "key", ["0123456789abcdef" * 2, "5AJQQJ99BKAC" + "i8y9YAXJ3w3" * 6 + "AAABACOGx1f0"]
)
def test_keys_of_azure_are_hidden_too(key: str) -> None:
    """Letters and digits, which no prefix marks as a key."""
    sent = SentKey(key)
    said = f'{{"error":{{"code":"401","message":"api-key: {key} is wrong"}}}}'
    assert key not in sent.hidden(said)
    assert MARK in sent.hidden(said)
    assert key.encode() not in sent.masked(said.encode())


def test_bytes_of_any_charset_stay() -> None:
    data = bytes(range(256)) + KEY.encode() + "é".encode()
    assert SENT.hidden_bytes(data) == bytes(range(256)) + MARK.encode() + "é".encode()


def test_of_a_long_text_the_plain_key_is_hidden() -> None:
    padding = "x" * LONGEST_ESCAPED
    assert SENT.hidden(f"{padding} {KEY}") == f"{padding} {MARK}"


@pytest.mark.parametrize("placeholder", ["EMPTY", "none", "sk-1234", ""])
def test_what_is_too_short_to_be_a_secret_stays(placeholder: str) -> None:
    text = f"finish: {placeholder}"
    assert SentKey(placeholder).hidden(text) == text


def test_an_answer_that_succeeds_may_have_a_placeholder_in_its_text() -> None:
    sent = SentKey("no-key-required")
    assert sent.hidden("no-key-required") == MARK
    for frame in ("say no-key-required", b"say no-key-required"):
        assert sent.masked_frame(frame) == frame
    assert NO_KEY.masked(b"any") == b"any"


def test_a_mask_is_as_long_as_the_key() -> None:
    for frame in (f"a {KEY} b", f"a {KEY} b".encode()):
        masked = SENT.masked_frame(frame)
        assert len(masked) == len(frame)
        assert KEY not in repr(masked)


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_what_may_begin_the_key_is_seen(cut: int) -> None:
    assert SENT.begun(b"text " + KEY[:cut].encode()) == cut
    assert SENT.begun(KEY[:cut].encode() + b" ") == 0


@pytest.mark.parametrize(
    ("key", "rare"),
    [
        ("sk-proj-Azerty0123456789", ord("A")),
        ("sk-proj-azerty0123456789", ord("z")),
        ("~" * 30, ord("~")),
        ("short", 0),
    ],
)
def test_a_chunk_without_a_rare_byte_of_the_key_lacks_it(key: str, rare: int) -> None:
    assert SentKey(key).rare == rare


def test_a_key_is_not_in_its_own_repr() -> None:
    assert KEY not in repr(SENT)


@pytest.mark.parametrize(
    "piece", ["\\", "\\\\u00", "&#0", "%", "sk-Proj_", "s", KEY[:-1], "\\u0073" * 9]
)
def test_no_text_takes_long(piece: str) -> None:
    """A hostile upstream chooses the text: time is linear in its length."""
    small, large = (
        min(_seconds(piece * (size // len(piece))) for _ in range(3))
        for size in (4_096, 32_768)
    )
    assert large < 32 * max(small, 0.001)  # 8 times as long: 64 is a square


def _seconds(text: str) -> float:
    began = time.thread_time()
    SENT.hidden(text)
    return time.thread_time() - began
