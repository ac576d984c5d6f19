"""The table of proxy keys in Redis, and their limits, as asked for.
tests/integration/security/test_proxy_keys.py tests what the library does with them."""

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from libs.common.proxy_keys import (
    Principal,
)
from libs.common.redis.key_table import KeyTable
from libs.common.redis.keys import DEFAULT, Keys

KEY = Principal("key_1", pools=("a", "b"), requests_per_minute=60)
RECORD = b'{"id":"key_1","pools":["a","b"],"requests_per_minute":60}'


class Caller:
    """Redis, which gives one answer."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.commands: list[tuple[Any, ...]] = []

    async def call(self, *command: Any) -> Any:
        self.commands.append(command)
        return self.answer

    async def ask(self, read: Any, command: Any) -> Any:
        raise AssertionError("nobody asks here")

    def tell(self, failed: Any, command: Any) -> None:
        raise AssertionError("nobody tells here")


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
    version = DEFAULT.proxy_keys_version()
    expected = ("FCALL", "rpx_keys_v1", 1, version, "12", 1, "h2", "h1", RECORD)
    assert caller.commands == [expected]


@pytest.mark.asyncio
async def test_the_table_of_another_stack() -> None:
    other = Keys("b_2")
    caller = Caller(None)
    table = KeyTable(caller, other)
    await table.version()
    await table.change(None, {})
    caller.answer = {}
    await table.read()
    version = other.proxy_keys_version()
    assert [command[:4] for command in caller.commands] == [
        ("GET", version),
        ("FCALL", "b_2_keys_v1", 1, version),
        ("HGETALL", other.proxy_keys()),
    ]


@pytest.mark.asyncio
async def test_a_first_table_was_never_seen() -> None:
    caller = Caller(b"1")
    await KeyTable(caller).change(None, {})
    assert caller.commands[0][4:] == ("", 0)
