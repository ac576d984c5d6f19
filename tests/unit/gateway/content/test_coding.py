"""Decoding compressed answers while they are relayed."""

import gzip
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.content.coding import LARGEST_OPENED, opener
from tests.support.memory.transports import cut_at, one_by_one

PLAIN = b'{"id": "resp_1", "usage": {"total_tokens": 7}}' * 20
PACKED = {
    b"gzip": gzip.compress(PLAIN),
    b"deflate": zlib.compress(PLAIN),
    b"zstd": zstandard.compress(PLAIN),
}


@pytest.mark.parametrize("coding", [None, b"identity"])
def test_what_is_not_packed_needs_no_opening(coding: bytes | None) -> None:
    assert opener(coding) is None


@pytest.mark.parametrize("coding", PACKED)
@given(positions=st.lists(st.integers(1, 200), max_size=8))
def test_the_plain_bytes_come_whatever_the_cuts(
    coding: bytes, positions: list[int]
) -> None:
    for pieces in (cut_at(PACKED[coding], positions), one_by_one(PACKED[coding])):
        open_ = opener(coding)
        assert open_ is not None
        assert b"".join(map(open_, pieces)) == PLAIN
        assert not open_.broken


@pytest.mark.parametrize("coding", [b"br", b"GZIP, gzip", b""])
def test_of_an_unknown_coding_nothing_is_known(coding: bytes) -> None:
    open_ = opener(coding)
    assert open_ is not None
    assert open_.broken
    assert open_(PLAIN) == b""


@pytest.mark.parametrize("coding", PACKED)
def test_after_nonsense_nothing_more_is_known(coding: bytes) -> None:
    open_ = opener(coding)
    assert open_ is not None
    assert open_(b"\xff" * 9) == b""
    assert open_.broken
    assert open_(PACKED[coding]) == b""


BOMB = bytes(LARGEST_OPENED * 4)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", gzip.compress(BOMB, 9)),
        (b"deflate", zlib.compress(BOMB, 9)),
        (b"zstd", zstandard.compress(BOMB)),
    ],
)
def test_what_unpacks_to_too_much_is_not_unpacked(coding: bytes, packed: bytes) -> None:
    open_ = opener(coding)
    assert open_ is not None
    assert len(open_(packed)) <= LARGEST_OPENED
    assert open_.broken
    assert open_(packed) == b""
