"""`python -m bench.hints`: how much event loop time it takes to read a request's body.

Measures processor time of this thread, which other programs hardly affect. A step is
work without a pause; the gateway yields to others after a millisecond of steps."""

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import zstandard

from libs.common.bodies.hints import LARGEST_QUICK, Reading, quick_hints
from services.gateway.content.request_coding import unpacked

PATH = b"/responses"
KB, MIB = 1_000, 1 << 20
ROUNDS = 200  # for bodies that take microseconds
TEXT = 'Hello, this is "text"\nwith {braces}, [brackets] and commas. '
PART = {"type": "input_text", "text": TEXT * 10}
MESSAGE = {"id": "msg_1", "type": "message", "role": "user", "content": [PART]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "arguments": '{"a":1}'}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "total 12\n" * 40}


def _dumped(*items: object) -> bytes:
    return json.dumps(items)[1:-1].encode() + b","


# Name -> the body's start, the repeated part, and its end.
Shape = tuple[bytes, bytes, bytes]
USUAL: dict[str, Shape] = {
    "an agent's history": (
        b'{"model":"m","input":[', _dumped(MESSAGE, CALL, RESULT), b"]}",
    ),
    "one long text": (
        b'{"model":"m","input":"', json.dumps(TEXT)[1:-1].encode(), b'"}',
    ),
    "an image": (
        b'{"model":"m","input":[{"content":[{"image_url":"data:', b"QUJD", b'"}]}]}',
    ),
}  # fmt: skip
HOSTILE: dict[str, Shape] = {
    "items `{},{},…`": (b'{"input":[', b"{},", b"]}"),
    "items with ids": (b'{"input":[', b'{"id":"rs_1"},', b"]}"),
    "odd items": (b'{"input":[', b'{"id":5},', b"]}"),
    "bad UTF-8 in items": (b'{"input":[', b'{"id":"\xff"},', b"]}"),
    "half emojis in items": (b'{"input":[', rb'{"a":"\ud800"},', b"]}"),
    "parts of one item": (b'{"input":[{"content":[', b"{},", b"]}]}"),
    "large items": (
        b'{"input":[', b'{"content":[{"text":"' + b"x" * 20_000 + b'"}]},', b"]}",
    ),
    "token numbers": (b'{"input":[', b"1,", b"]}"),
    "deep nesting": (b'{"input":', b"[", b""),
    "lists 60 deep": (b'{"input":[', b"[" * 60 + b"]" * 60 + b",", b"]}"),
    "members": (b"{", b'"a":1,', b"}"),
    "models": (b"{", b'"model":"m",', b"}"),
    "metadata": (b'{"metadata":{', b'"k":"v",', b"}}"),
    "tools": (b'{"tools":[', b'{"container":"cntr_1"},', b"]}"),
    "escapes": (b'{"input":"', rb"\u0041", b'"}'),
    "backslashes": (b'{"input":"', rb"\\", b'"}'),
    "one number": (b'{"input":', b"1", b"}"),
    "spaces": (b'{"input":', b" ", b"1}"),
}  # fmt: skip


def body(shape: Shape, size: int) -> bytes:
    before, unit, after = shape
    count = max(1, (size - len(before) - len(after)) // len(unit))
    return before + (unit * count).removesuffix(b",") + after


def measure(steps: Callable[[], Iterator[object]]) -> tuple[float, float]:
    """The longest step and the sum of all steps, in ms."""
    longest, began = 0.0, time.thread_time()
    first = began
    for _ in steps():
        ended = time.thread_time()
        longest, began = max(longest, ended - began), ended
    ended = time.thread_time()
    return max(longest, ended - began) * 1000, (ended - first) * 1000


def peak(steps: Callable[[], Iterator[object]]) -> int:
    tracemalloc.start()
    try:
        for _ in steps():
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def reading(plain: bytes, *, isolate: bool) -> Iterator[object]:
    """Reads hints as the gateway does."""
    if quick_hints(PATH, [], plain, isolate) is None:
        read = Reading(PATH, [], plain, isolate)
        yield from read.steps()
        assert read.hints is not None


def opening(packed: bytes, coding: bytes, *, isolate: bool) -> Iterator[object]:
    pieces = []
    for piece in unpacked(packed, coding):
        pieces.append(piece)
        yield None
    with ThreadPoolExecutor(1) as threads:  # as the gateway does
        plain = threads.submit(b"".join, pieces).result()
    pieces.clear()
    yield from reading(plain, isolate=isolate)


def row(name: str, size: int, steps: Callable[[], Iterator[object]]) -> None:
    tries = 3 if size <= MIB else 1
    longest, total = min((measure(steps) for _ in range(tries)), key=lambda m: m[0])
    # The measured memory includes the body itself.
    times = peak(steps) / size + 1
    print(f"| {name} | {shown(size)} | {longest:.2f} | {total:,.1f} | {times:.1f} |")


def shown(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KB} KB"


def quick(shape: Shape, size: int) -> str:
    plain = body(shape, size)
    found = []
    for isolate in (False, True):
        began = time.thread_time()
        for _ in range(ROUNDS):
            quick_hints(PATH, [], plain, isolate)
        found.append((time.thread_time() - began) / ROUNDS * 1e6)
    return f"| {shown(size)} | {found[0]:.1f} | {found[1]:.1f} |"


def main() -> None:
    print("| an agent's history of | µs | isolated |\n|---|--:|--:|")
    for size in (KB, 10 * KB, 64 * KB):
        print(quick(USUAL["an agent's history"], size))
    print("\n| body | size | longest step, ms | all, ms | memory ÷ body |")
    print("|---|--:|--:|--:|--:|")
    for name, shape in USUAL.items():
        for size in (100 * KB, MIB, 16 * MIB, 64 * MIB):
            plain = body(shape, size)
            row(name, size, partial(reading, plain, isolate=True))
    for name, shape in HOSTILE.items():
        for size in (LARGEST_QUICK, MIB, 64 * MIB):
            plain = body(shape, size)
            row(name, size, partial(reading, plain, isolate=True))
    plain = body(HOSTILE["items `{},{},…`"], 16 * MIB)
    for coding, packed in (
        (b"gzip", gzip.compress(plain)),
        (b"zstd", zstandard.compress(plain)),
    ):
        name = f"{len(packed) / 1024:.0f} KiB of {coding.decode()}: items"
        row(name, len(plain), partial(opening, packed, coding, isolate=True))


if __name__ == "__main__":
    main()
