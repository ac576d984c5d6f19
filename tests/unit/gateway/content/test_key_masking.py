"""Masking keys in errors that are passed on."""

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
import zstandard

from libs.common.headers import Header
from libs.common.providers.key_echoes import MARK, SentKey
from services.gateway.content.key_masking import LARGEST_OPENED, hide, without_key
from services.gateway.content.response_facts import Facts

KEY = "sk-proj-0123456789-abcdefgh"
SENT = SentKey(KEY)
BODY = json.dumps({"error": {"message": f"Bad key {KEY}"}}).encode()
HIDDEN = BODY.replace(KEY.encode(), MARK.encode())
JSON: Header = (b"content-type", b"application/json")
CODINGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"X-GZIP": gzip.compress,
    b"deflate": zlib.compress,
    b" zstd": zstandard.compress,
}


@pytest.mark.parametrize("coding", CODINGS)
def test_what_shows_the_key_leaves_opened(coding: bytes) -> None:
    body = CODINGS[coding](BODY)
    shown = without_key(400, [JSON, (b"content-encoding", coding)], body, SENT)
    assert shown == ([JSON], HIDDEN, HIDDEN)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_does_not_show_it_leaves_as_it_came(coding: bytes) -> None:
    headers, body = [JSON, (b"content-encoding", coding)], CODINGS[coding](HIDDEN)
    assert without_key(400, headers, body, SENT) == (headers, body, HIDDEN)


@pytest.mark.parametrize(
    "codings", [[b"br"], [b"gzip, br"], [b"gzip", b"gzip"], [b"compress"]]
)
def test_what_nobody_can_open_is_replaced(codings: list[bytes]) -> None:
    headers = [JSON, *((b"content-encoding", coding) for coding in codings)]
    shown = without_key(400, headers, b"\x00" + BODY, SENT)
    assert shown.headers == [JSON]
    assert json.loads(shown.body)["error"]["code"] == "upstream_error_unreadable"
    assert KEY.encode() not in shown.body


def test_what_is_not_what_its_coding_says_is_searched_as_it_is() -> None:
    headers = [JSON, (b"content-encoding", b"zstd")]
    assert without_key(400, headers, HIDDEN, SENT) == (headers, HIDDEN, HIDDEN)
    assert without_key(400, headers, BODY, SENT) == ([JSON], HIDDEN, HIDDEN)


def test_of_a_bomb_the_beginning_is_searched() -> None:
    headers = [(b"content-encoding", b"gzip")]
    rest = b" " * (LARGEST_OPENED + 9)
    harmless, shows = gzip.compress(rest), gzip.compress(BODY + rest)
    assert without_key(500, headers, harmless, SENT)[:2] == (headers, harmless)
    shown = without_key(500, headers, shows, SENT)
    assert KEY.encode() not in shown.body
    assert len(shown.body) <= LARGEST_OPENED


def test_headers_that_show_the_key() -> None:
    headers = [(b"www-authenticate", b"Bearer " + KEY.encode()), JSON]
    shown = without_key(401, headers, b"", SENT)
    assert shown.headers == [(b"www-authenticate", b"Bearer [upstream key]"), JSON]


def test_facts_that_show_the_key() -> None:
    facts = Facts(KEY, f"m-{KEY}", KEY, KEY, f"Bearer {KEY}, {KEY}")
    hide(facts, SENT)
    assert KEY not in repr(facts)
    assert facts.error_message == f"Bearer {MARK}, {MARK}"
