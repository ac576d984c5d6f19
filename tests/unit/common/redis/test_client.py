"""Calls through an ordinary client; its errors become ours."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from libs.common.errors import RedisAway
from libs.common.redis.client import ClientCaller, servers_clock

pytestmark = pytest.mark.asyncio


class Client:
    """A client that answers, or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.commands: list[tuple[Any, ...]] = []

    async def execute_command(self, *command: Any) -> Any:
        self.commands.append(command)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def caller(client: Client) -> ClientCaller:
    return ClientCaller(cast(Redis, client))


async def test_a_call_gives_the_reply() -> None:
    client = Client(b"v")
    assert await caller(client).call("GET", "k") == b"v"
    assert client.commands == [("GET", "k")]


async def test_an_error_reply_stays_what_it_is() -> None:
    with pytest.raises(ResponseError, match="wrong type"):
        await caller(Client(ResponseError("wrong type"))).call("GET", "k")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RedisConnectionError("refused"), "refused"),
        (OSError("no route"), "no route"),
        (TimeoutError(), "no answer in time"),
    ],
)
async def test_a_redis_that_is_away_is_told_with_its_cause(
    error: Exception, cause: str
) -> None:
    with pytest.raises(RedisAway, match=cause):
        await caller(Client(error)).call("GET", "k")


@pytest.mark.parametrize(
    ("answer", "times"), [("OK", 0), (ResponseError("full"), 1), (OSError(), 1)]
)
async def test_who_waits_for_no_reply_hears_of_a_failure(
    answer: Any, times: int
) -> None:
    failed: list[None] = []
    client = Client(answer)
    caller(client).tell(lambda: failed.append(None), ("SET", "k", "v"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert client.commands == [("SET", "k", "v")]
    assert len(failed) == times


async def test_the_servers_clock_is_asked_for_by_an_empty_argument() -> None:
    assert servers_clock() == ""


@pytest.mark.parametrize("error", [None, ResponseError("wrong type")])
async def test_a_reply_can_be_read_on_the_way_an_error_too(error: Any) -> None:
    reply = error or b"v"
    assert await caller(Client(reply)).ask(lambda found: [found], ("GET",)) == [reply]
