"""Paths stay below /v1; compressed bodies are decompressed for their hints only."""

import gzip
import os
from contextlib import suppress

import pytest
import zstandard

from services.gateway.errors import Problem
from services.gateway.proxy.paths import (
    LARGEST_OPENED,
    MOST_MEMBERS,
    PACKED_STEP,
    PIECE,
    Unopened,
    opened,
    unpacked,
    upstream_path,
)


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
MANY = b"".join(gzip.compress(b"x") for _ in range(MOST_MEMBERS))
WIDE = zstandard.ZstdCompressionParameters(window_log=25, write_content_size=False)


def streamed(body: bytes, parameters: zstandard.ZstdCompressionParameters) -> bytes:
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("body", "coding", "expected"),
    [
        pytest.param(BODY, None, BODY, id="plain"),
        pytest.param(zstandard.compress(BODY), b"zstd", BODY, id="zstd"),
        pytest.param(gzip.compress(BODY), b"gzip", BODY, id="gzip"),
        pytest.param(BODY, b"zstd", None, id="a lie"),
        pytest.param(BODY, b"br", None, id="unknown coding"),
        pytest.param(b"", b"gzip", b"", id="empty"),
        pytest.param(
            zstandard.compress(bytes(LARGEST_OPENED)),
            b"zstd",
            bytes(LARGEST_OPENED),
            id="as large as may be",
        ),
        pytest.param(
            zstandard.compress(bytes(LARGEST_OPENED + 1)), b"zstd", None, id="zstd bomb"
        ),
        pytest.param(
            gzip.compress(bytes(LARGEST_OPENED + 1)), b"gzip", None, id="gzip bomb"
        ),
        pytest.param(
            zstandard.compress(b"a") + zstandard.compress(b"b"), b"zstd", b"ab",
            id="two zstd frames",
        ),
        pytest.param(MANY, b"gzip", b"x" * MOST_MEMBERS, id="gzip members"),
        pytest.param(MANY + gzip.compress(b"x"), b"gzip", None, id="too many members"),
        pytest.param(gzip.compress(BODY) + b"junk", b"gzip", None, id="junk behind"),
        pytest.param(gzip.compress(BODY)[:-4], b"gzip", None, id="cut"),
        pytest.param(streamed(BODY, WIDE), b"zstd", None, id="a wide zstd window"),
    ],
)  # fmt: skip
def test_opened(body: bytes, coding: bytes | None, expected: bytes | None) -> None:
    headers = [(b"content-encoding", coding)] if coding else []
    assert opened(body, headers) == expected


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(gzip.compress(bytes(LARGEST_OPENED)), id="zeros"),
        pytest.param(gzip.compress(os.urandom(1 << 20)), id="chance"),
        # Empty blocks.
        pytest.param(
            gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 100_000, id="empty blocks"
        ),
    ],
)
def test_a_piece_of_gzip_is_small(packed: bytes) -> None:
    pieces = 0
    with suppress(Unopened):
        for piece in unpacked(packed, b"gzip"):
            assert len(piece) <= PIECE
            pieces += 1
    assert pieces >= len(packed) // PACKED_STEP
