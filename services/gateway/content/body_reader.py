"""Bodies that one call must not read, read beside other work: large ones, compressed
ones, odd ones. One slice of time for each turn of the event loop, whatever number of
bodies is being read. (server/parser.py enforces the size limit.)"""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec

from libs.common.bodies.hints import (
    UNREADABLE,
    Hints,
    Reading,
    quick_hints,
    unopened_hints,
)
from libs.common.bodies.scanner import Scan
from libs.common.headers import Header
from services.gateway.content.request_coding import Unopened, unpacked

SLICE_S = 0.001  # of the event loop's time
MOST_AT_ONCE = 8  # bodies; each may take LARGEST_OPENED twice
QUICK_PIECES = 2  # of a compressed body that are opened at once
LARGEST_QUICK_PACKED = 65_536  # bytes of a zstd body that no step reads too long


class Read(msgspec.Struct):
    """A body that was read; `plain` is what is inside a compressed one."""

    hints: Hints
    plain: bytes
    scan: Scan | None = None  # of a body that took steps


class Reader:
    """Reads bodies for one gateway."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="open")

    async def read(
        self,
        path: bytes,
        headers: list[Header],
        body: bytes,
        coding: bytes | None = None,
        *,
        isolate: bool = False,
    ) -> Read:
        """What `quick_hints` does not read. Whoever does not need it any more cancels
        this."""
        try:
            plain = _opened_at_once(body, coding)
            if plain is not None:
                hints = quick_hints(path, headers, plain, isolate)
                if hints is not None:
                    return Read(hints, plain)
            async with self._room:
                if plain is None:
                    plain = await self._opened(body, coding)
                reading = Reading(path, headers, plain, isolate)
                await self.run(reading.steps())
        except Unopened:
            return Read(unopened_hints(path, headers, isolate), b"")
        hints = reading.hints
        # Small bodies that were read by one call: `isolation.check_body`.
        if isolate and hints.problem is None and reading.scan.repeats:
            hints = replace(hints, problem=UNREADABLE)
        return Read(hints, plain, reading.scan)

    async def opened(self, body: bytes, coding: bytes | None) -> bytes:
        """The plain bytes. Raises `Unopened`."""
        plain = _opened_at_once(body, coding)
        if plain is not None:
            return plain
        async with self._room:
            return await self._opened(body, coding)

    async def _opened(self, body: bytes, coding: bytes | None) -> bytes:
        pieces = unpacked(body, coding)
        found: list[bytes] = []
        loop = asyncio.get_running_loop()
        if coding == b"zstd" and len(body) > LARGEST_QUICK_PACKED:
            while piece := await loop.run_in_executor(self._threads, next, pieces, b""):
                found.append(piece)
        else:
            await self.run(_kept(pieces, found))
        # To copy megabytes takes milliseconds; join lets others run meanwhile.
        return await loop.run_in_executor(self._threads, b"".join, found)

    async def run(self, steps: Iterator[Any]) -> None:
        """Take all steps, and let others run in between."""
        while True:
            async with self._turn:
                until = time.perf_counter() + SLICE_S
                for _ in steps:
                    if time.perf_counter() > until:
                        break
                else:
                    return
                await asyncio.sleep(0)


def _kept(pieces: Iterator[bytes], found: list[bytes]) -> Iterator[None]:
    for piece in pieces:
        found.append(piece)
        yield


def _opened_at_once(body: bytes, coding: bytes | None) -> bytes | None:
    """None when it takes more than a few steps. Raises `Unopened`."""
    if coding is None:
        return body
    if coding == b"zstd" and len(body) > LARGEST_QUICK_PACKED:
        return None
    found: list[bytes] = []
    for piece in unpacked(body, coding):
        if len(found) == QUICK_PIECES:
            return None
        found.append(piece)
    return b"".join(found)
