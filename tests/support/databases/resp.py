"""A scripted Redis on a real socket, for how a client handles answers.
tests/integration covers what a real server answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis

from tests.support.processes.serving import serving

# Sent by redis-py before the first command.
GREETINGS = {b"CLIENT", b"HELLO", b"SELECT"}
HANG_UP = object()  # an answer: close the connection
SILENCE = object()  # an answer: none

Command = list[bytes]


class Raw(bytes):
    """Bytes to send as they are."""


class Scripted:
    """`answer` returns the reply to each command: None, a number, bytes, text (a
    status), a list, an exception (an error reply), `Raw`, HANG_UP or SILENCE."""

    def __init__(self, answer: Callable[[Command], Any]) -> None:
        self.answer = answer
        self.commands: list[Command] = []
        self.connections = 0
        self.url = ""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        parser = hiredis.Reader()
        while data := await reader.read(65_536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                if not self._reply(command, writer):
                    return

    def _reply(self, command: Command, writer: asyncio.StreamWriter) -> bool:
        if command[0].upper() in GREETINGS:
            writer.write(b"+OK\r\n")
            return True
        self.commands.append(command)
        reply = self.answer(command)
        if reply is not SILENCE and reply is not HANG_UP:
            writer.write(encoded(reply))
        return reply is not HANG_UP


def encoded(reply: Any) -> bytes:
    """A reply in RESP 2."""
    if isinstance(reply, Raw):
        return reply
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    sign = {str: "+", int: ":"}.get(type(reply), "-")  # or an exception
    return f"{sign}{reply}\r\n".encode()


@asynccontextmanager
async def scripted(answer: Callable[[Command], Any]) -> AsyncIterator[Scripted]:
    """A server on loopback, on a port that the system chooses."""
    made = Scripted(answer)
    async with serving(made.serve) as port:
        made.url = f"redis://127.0.0.1:{port}/0"
        yield made
