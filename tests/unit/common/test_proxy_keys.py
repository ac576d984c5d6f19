"""Secrets of proxy keys, and the principals they stand for."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.proxy_keys import (
    MARK,
    PREFIX_CHARS,
    Principal,
    new_secret,
    secret_hash,
)

KEY = Principal("key_1", pools=("a", "b"), requests_per_minute=60)
RECORD = b'{"id":"key_1","pools":["a","b"],"requests_per_minute":60}'


def test_secrets_are_marked_and_hard_to_guess() -> None:
    made = {new_secret() for _ in range(1000)}
    assert len(made) == 1000
    for secret in made:
        assert secret.startswith(MARK)
        assert len(secret) == len(MARK) + 43  # 256 bits
        assert secret.isascii()
    assert PREFIX_CHARS < 12


@given(st.binary())
def test_what_is_kept_of_a_secret_is_its_hash(secret: bytes) -> None:
    assert secret_hash(secret) == hashlib.sha256(secret).hexdigest()


@pytest.mark.parametrize(
    ("requests", "tokens", "limited"),
    [(None, None, False), (1, None, True), (None, 1, True), (1, 1, True)],
)
def test_a_key_with_a_limit_is_counted(
    requests: int | None, tokens: int | None, limited: bool
) -> None:
    found = Principal("k", requests_per_minute=requests, tokens_per_minute=tokens)
    assert found.limited is limited
