"""Requests of the client tests, and their outcomes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.processes.stack import Stack

MODEL = "gpt-5.5"
REASONING: Any = ["reasoning.encrypted_content"]
TOOL: Any = {
    "type": "function",
    "name": "exec_command",
    "parameters": {
        "type": "object",
        "properties": {"cmd": {"type": "string"}},
        "required": ["cmd"],
        "additionalProperties": False,
    },
    "strict": True,
}


def output_of(call_id: str) -> Any:
    """A tool's output as the next request's input."""
    return [{"type": "function_call_output", "call_id": call_id, "output": "hi"}]


async def refuse_once(stack: Stack) -> None:
    """One request is refused with 429 on all its attempts."""
    await stack.fault(times=3, status=429, headers={"retry-after": "1"})


async def compressed_and_read(stack: Stack) -> bool:
    """Whether the streams were compressed, and the ledger has their usage."""
    rows = await stack.events("request")
    sent = [dict(entry["response_headers"]) for entry in stack.journal()]
    return (
        bool(sent)
        and all(headers["content-encoding"] == "gzip" for headers in sent)
        and {(row["transport"], row["usage_state"]) for row in rows}
        == {("sse", "final")}
    )


@dataclass
class Clock:
    seconds: float = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    clock, began = Clock(), time.monotonic()
    yield clock
    clock.seconds = time.monotonic() - began


async def outcomes(stack: Stack, count: int) -> list[str]:
    """The outcomes of the ledger's requests, once there are this many."""
    events = await stack.requests(count)
    assert await stack.in_flight() == 0
    return [event["outcome"] for event in events]
