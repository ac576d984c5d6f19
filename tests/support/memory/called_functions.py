"""Redis as the routing functions call it: keeps the commands, answers as told."""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from libs.common.redis.keys import DEFAULT
from libs.common.redis.packing import flat
from libs.common.routing.functions import RoutingFunctions, Terms

NOW = 1_700_000_000_000
TERMS = Terms(session_ttl_ms=1, id_ttl_ms=2, cooldown_ms=3, unknown_ttl_ms=4)


class Redis:
    """Answers commands by their name, functions by theirs."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.commands: list[tuple[Any, ...]] = []
        self.told: list[tuple[Any, ...]] = []

    def call(self, *parts: Any) -> "asyncio.Future[Any]":
        command = tuple(flat(parts))
        self.commands.append(command)
        future = asyncio.get_running_loop().create_future()
        name = command[1] if command[0] == "FCALL" else command[0]
        answer = self.answers[name]
        if isinstance(answer, dict) and command[0] == "GET":
            answer = answer.get(command[1])
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    async def ask(self, read: Callable[[Any], Any], parts: tuple[Any, ...]) -> Any:
        try:
            reply = await self.call(*parts)
        except ResponseError as error:
            reply = error
        return read(reply)

    def tell(self, failed: Callable[[], None], command: tuple[Any, ...]) -> None:
        self.told.append(tuple(flat(command)))
        failed()

    @property
    def functions(self) -> RoutingFunctions:
        return RoutingFunctions(self, "events", TERMS, "source", lambda: NOW)

    def arguments(self) -> tuple[Any, ...]:
        """Of the last function, without its name and keys."""
        name, number, *rest = self.commands[-1][1:]
        assert (number, rest[:2]) == (2, [DEFAULT.catalogue_version(), "events"]), name
        return tuple(rest[2:])
