"""A steady load through one address: `python -m tests.lab.load URL REPORT`.

Sends JSON requests, streams and WebSocket turns until SIGTERM, lets those in progress
end, and writes lines to REPORT: `KIND COUNT` for each kind of request, `slowest
SECONDS`, and `failed KIND SESSION ERROR` for each failure. Nothing is sent twice,
except on a socket that was closed with 1012 before it was used. Every request has a
session of its own, by which it is found in SQL."""

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

# Of each worker, between two requests.
PAUSE_S = 0.05
WORKERS = {"json": 4, "stream": 4, "socket": 2}
LONGEST_S = 600  # of a run
LONGEST_WAIT_S = 120  # for an answer
REQUEST = {"model": "gpt-5.5", "input": "Say hello"}
RESTARTED = 1012  # the code with which a draining gateway closes sockets


class Failed(Exception):
    """An answer that is not the expected one."""


class Load:
    """Workers that send requests until `stopping`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stopping = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self._sent = 0

    async def run(self) -> None:
        kinds: dict[str, Callable[[httpx.AsyncClient, str], Awaitable[None]]] = {
            "json": self._json,
            "stream": self._stream,
            "socket": self._socket,
        }
        async with (
            httpx.AsyncClient(timeout=LONGEST_WAIT_S, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            for kind, workers in WORKERS.items():
                for _ in range(workers):
                    group.create_task(self._repeat(kind, kinds[kind], client))

    async def _repeat(
        self,
        kind: str,
        send: Callable[[httpx.AsyncClient, str], Awaitable[None]],
        client: httpx.AsyncClient,
    ) -> None:
        while not self.stopping.is_set():
            self._sent += 1
            session = f"lab-{time.time_ns()}-{self._sent}"
            began = time.monotonic()
            try:
                await send(client, session)
                self.counts[kind] += 1
            except (httpx.HTTPError, OSError, ConnectionClosed, Failed) as error:
                cause = f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
                self.failures.append(f"failed {kind} {session} {cause}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(PAUSE_S)

    async def _json(self, client: httpx.AsyncClient, session: str) -> None:
        answer = await client.post(
            f"{self.url}/v1/responses", json=REQUEST, headers={"x-session-id": session}
        )
        if answer.status_code != 200 or answer.json()["status"] != "completed":
            raise Failed(f"{answer.status_code} {answer.text[:200]}")

    async def _stream(self, client: httpx.AsyncClient, session: str) -> None:
        async with client.stream(
            "POST",
            f"{self.url}/v1/responses",
            json={**REQUEST, "stream": True},
            headers={"x-session-id": session},
        ) as answer:
            text = "".join([piece async for piece in answer.aiter_text()])
        if answer.status_code != 200 or "event: response.completed" not in text:
            raise Failed(f"{answer.status_code} {text[-200:]}")

    async def _socket(self, _: httpx.AsyncClient, session: str) -> None:
        while not await self._turn(session):
            self.counts["restarted"] += 1

    async def _turn(self, session: str) -> bool:
        """One turn on a socket of its own. False if the gateway closed the socket
        before it took the turn."""
        async with self._connected(session) as socket:
            began = False
            try:
                await socket.send(json.dumps({"type": "response.create", **REQUEST}))
                async for kind in _kinds(socket.__aiter__()):
                    began = True
                    if kind == "response.completed":
                        return True
                    if kind in ("error", "response.failed"):
                        raise Failed(kind)
            except ConnectionClosed as closed:
                if began or closed.rcvd is None or closed.rcvd.code != RESTARTED:
                    raise
                return False
            if began or socket.close_code != RESTARTED:
                raise Failed(f"closed with {socket.close_code}")
            return False

    @asynccontextmanager
    async def _connected(self, session: str) -> AsyncIterator[ClientConnection]:
        address = f"{self.url.replace('http', 'ws', 1)}/v1/responses"
        headers = {"x-session-id": session}
        try:
            async with connect(
                address,
                additional_headers=headers,
                proxy=None,
                open_timeout=LONGEST_WAIT_S,
            ) as socket:
                yield socket
        except InvalidStatus as refused:
            answer = refused.response
            raise Failed(f"{answer.status_code} {answer.body!r}") from None


async def _kinds(messages: AsyncIterator[str | bytes]) -> AsyncIterator[str]:
    async for message in messages:
        yield json.loads(message)["type"]


async def main(load: Load) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, load.stopping.set)
    loop.call_later(LONGEST_S, load.stopping.set)
    await load.run()


def lines(load: Load) -> list[str]:
    """The report."""
    counts = [f"{kind} {count}" for kind, count in load.counts.items()]
    return [*counts, f"slowest {load.slowest_s:.2f}", *load.failures]


if __name__ == "__main__":
    running = Load(sys.argv[1])
    asyncio.run(main(running))
    draft = Path(f"{sys.argv[2]}.draft")
    draft.write_text("\n".join(lines(running)) + "\n")
    draft.rename(sys.argv[2])
