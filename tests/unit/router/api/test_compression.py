"""Compression of responses, by Accept-Encoding."""

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zstandard
from falcon.asgi import Request, Response, SSEvent

from services.router.api.compression import (
    LARGE,
    LEAST,
    UNTOUCHED,
    Compression,
    coding_for,
)
from tests.support.values.admin import client

LONG = "a" * (LEAST + 1)


async def _events() -> AsyncIterator[SSEvent]:
    yield SSEvent(data=LONG.encode())


class Thing:
    async def on_get(self, req: Request, resp: Response) -> None:
        kind = req.get_param("kind")
        if kind == "events":
            resp.sse = _events()
        elif kind == "secret":
            resp.text = LONG
            resp.set_header("cache-control", UNTOUCHED)
        elif kind == "media":
            resp.media = {"long": LONG}
        else:
            resp.text = "a" * int(kind or 0)


API = client({"/": Thing()}, Compression())


def get(kind: object, accepted: str | None = "gzip, zstd") -> Any:
    headers = {} if accepted is None else {"accept-encoding": accepted}
    return API.simulate_get("/", params={"kind": str(kind)}, headers=headers)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("GZIP;q=0.5", "gzip"),
        ("zstd;q=0, gzip", "gzip"),
        ("zstd; q=0.000, gzip;q=0", None),
        ("*", "zstd"),
        ("*;q=0", None),
        ("zstd;q=0, *", "gzip"),
    ],
)
def test_the_coding(accepted: str | None, coding: str | None) -> None:
    assert coding_for(accepted) == coding


@pytest.mark.parametrize("size", [LEAST + 1, LARGE])
def test_a_long_body_is_compressed(size: int) -> None:
    packed = get(size)
    assert packed.headers["content-encoding"] == "zstd"
    assert zstandard.decompress(packed.content) == b"a" * size
    assert int(packed.headers["content-length"]) == len(packed.content) < LEAST
    packed = get(size, "gzip")
    assert gzip.decompress(packed.content) == b"a" * size
    plain = get(size, None)
    assert plain.content == b"a" * size
    assert {p.headers["vary"] for p in (packed, plain)} == {"accept-encoding"}


def test_media_are_compressed_too() -> None:
    assert LONG.encode() in gzip.decompress(get("media", "gzip").content)


@pytest.mark.parametrize("kind", [0, LEAST, "events", "secret"])
def test_what_stays_as_it_is(kind: object) -> None:
    result = get(kind)
    assert "content-encoding" not in result.headers
    assert "vary" not in result.headers
