"""Paths stay below /v1; compressed bodies are opened for their hints only."""

import gzip

import pytest
import zstandard

from services.gateway.incoming import LARGEST_OPENED, opened, upstream_path
from services.gateway.problems import Problem


@pytest.mark.parametrize(
    "path",
    [b"/v1/responses", b"/v1/files/a%20b", b"/v1/x.y/..z", b"/v1/", b"/v1/a..b/c"],
)
def test_plain_paths_pass_as_they_are(path: bytes) -> None:
    assert upstream_path(path) == path[3:]


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/../admin",
        b"/v%31/responses",
        b"/%76%31/responses",
        b"/v1/..",
        b"/v1/a/./b",
        b"/v1/%2e%2e/admin",
        b"/v1/.%2E/admin",
        b"/v1/a%2Fb",
        b"/v1/a%5cb",
        b"/v1/a\\b",
    ],
)
def test_dot_segments_and_encoded_slashes_are_refused(path: bytes) -> None:
    with pytest.raises(Problem) as refused:
        upstream_path(path)
    assert refused.value.status == 404


BODY = b'{"model": "m"}' * 10


@pytest.mark.parametrize(
    ("body", "coding", "expected"),
    [
        pytest.param(BODY, None, BODY, id="plain"),
        pytest.param(zstandard.compress(BODY), b"zstd", BODY, id="zstd"),
        pytest.param(gzip.compress(BODY), b"gzip", BODY, id="gzip"),
        pytest.param(BODY, b"zstd", b"", id="a lie"),
        pytest.param(BODY, b"br", b"", id="unknown coding"),
        pytest.param(b"", b"gzip", b"", id="empty"),
        pytest.param(
            zstandard.compress(bytes(LARGEST_OPENED + 1)), b"zstd", b"", id="zstd bomb"
        ),
        pytest.param(
            gzip.compress(bytes(LARGEST_OPENED + 1)), b"gzip", b"", id="gzip bomb"
        ),
    ],
)
def test_opened(body: bytes, coding: bytes | None, expected: bytes) -> None:
    headers = [(b"content-encoding", coding)] if coding else []
    assert opened(body, headers) == expected
