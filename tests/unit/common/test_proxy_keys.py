"""Proxy key secrets, their table in Redis, and calls for their limits.
tests/integration/security/test_proxy_keys.py tests the functions themselves."""

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from libs.common.proxy_keys import (
    MARK,
    PREFIX_CHARS,
    KeyLimits,
    KeyTable,
    Principal,
    Reached,
    new_secret,
    secret_hash,
)
from libs.common.redis import keys

KEY = Principal("key_1", pools=("a", "b"), requests_per_minute=60)
RECORD = b'{"id":"key_1","pools":["a","b"],"requests_per_minute":60}'


class Caller:
    """A Redis with a single answer."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.commands: list[tuple[Any, ...]] = []

    async def call(self, *command: Any) -> Any:
        self.commands.append(command)
        return self.answer

    def tell(self, failed: Any, *command: Any) -> None:
        raise AssertionError("nobody tells here")


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


@pytest.mark.parametrize(("reply", "version"), [(b"12", "12"), (None, None)])
@pytest.mark.asyncio
async def test_the_version(reply: bytes | None, version: str | None) -> None:
    assert await KeyTable(Caller(reply)).version() == version


@pytest.mark.parametrize(
    "found", [{b"h1": RECORD, b"h2": b"{"}, [b"h1", RECORD, b"h2", b"{"]]
)
@pytest.mark.asyncio
async def test_one_key_that_cannot_be_read_does_not_take_the_others_with_it(
    found: Any,
) -> None:
    with capture_logs() as logs:
        assert await KeyTable(Caller(found)).read() == {"h1": KEY}
    assert [log["action"] for log in logs] == ["odd_proxy_key"]


@pytest.mark.asyncio
async def test_what_a_newer_router_wrote_is_read() -> None:
    newer = msgspec.json.encode(msgspec.to_builtins(KEY) | {"surprise": 1})
    assert await KeyTable(Caller({b"h": newer})).read() == {"h": KEY}


@pytest.mark.parametrize(("reply", "done"), [(b"13", True), (None, False)])
@pytest.mark.asyncio
async def test_a_change_names_the_version_that_was_seen(
    reply: bytes | None, done: bool
) -> None:
    caller = Caller(reply)
    assert await KeyTable(caller).change("12", {"h1": KEY}, ("h2",)) is done
    version = keys.proxy_keys_version()
    expected = ("FCALL", "rpx_keys_v1", 1, version, "12", 1, "h2", "h1", RECORD)
    assert caller.commands == [expected]


@pytest.mark.asyncio
async def test_a_first_table_was_never_seen() -> None:
    caller = Caller(b"1")
    await KeyTable(caller).change(None, {})
    assert caller.commands[0][4:] == ("", 0)


@pytest.mark.parametrize(
    ("reply", "reached"),
    [(None, None), ([], None), ([b"tokens", b"1500"], Reached("tokens", 1500))],
)
@pytest.mark.asyncio
async def test_a_limit_that_is_reached(reply: Any, reached: Reached | None) -> None:
    caller = Caller(reply)
    assert await KeyLimits(caller, lambda: 7).count(KEY) == reached
    spent = keys.spent("key_1")
    expected = ("FCALL", "rpx_limits_v1", 1, spent, "key_1", 60, "", 7)
    assert caller.commands == [expected]


@pytest.mark.asyncio
async def test_tokens_are_counted_for_the_key() -> None:
    caller = Caller(1)
    await KeyLimits(caller, lambda: 7).spend("key_1", 42)
    spent = keys.spent("key_1")
    assert caller.commands == [("FCALL", "rpx_spend_v1", 1, spent, "key_1", 42, 7)]
