"""Files with an ETag."""

import gzip
from typing import Any

import pytest
import zstandard

from services.router.api.compression import LEAST, Compression
from services.router.api.fixed import Fixed
from tests.support.values.admin import client

BODY = b"a" * (LEAST + 1)
API = client(
    {
        "/long": Fixed(BODY, "text/plain", "default-src 'none'"),
        "/short": Fixed(b"b", "a/b"),
    },
    Compression(),
)


def get(path: str = "/long", **headers: str) -> Any:
    return API.simulate_get(
        path, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def test_it_comes_with_what_a_browser_needs_to_ask_again() -> None:
    first = get()
    assert (first.content, first.headers["content-type"]) == (BODY, "text/plain")
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["content-security-policy"] == "default-src 'none'"
    assert first.headers["vary"] == "accept-encoding"
    assert first.headers["etag"].startswith('W/"')
    assert first.headers["etag"] != get("/short").headers["etag"]
    assert "content-security-policy" not in get("/short").headers


@pytest.mark.parametrize("form", ["{}", '"x", {}', "*"])
def test_what_the_client_has_is_not_sent_again(form: str) -> None:
    tag = get().headers["etag"]
    again = get(if_none_match=form.format(tag), accept_encoding="gzip")
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    assert get(if_none_match='W/"other"').status_code == 200


def test_it_is_compressed_once() -> None:
    for _ in range(2):
        packed = get(accept_encoding="zstd")
        assert zstandard.decompress(packed.content) == BODY
        assert packed.headers["etag"] == get().headers["etag"]
    assert gzip.decompress(get(accept_encoding="gzip").content) == BODY
    assert "content-encoding" not in get("/short", accept_encoding="gzip").headers
