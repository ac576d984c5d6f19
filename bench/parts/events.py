"""Generates telemetry as gateways write it: half requests, half decisions."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

from libs.common.redis.shared_connection import connect
from tests.support.values.telemetry import decision_event, request_event, streamed

STREAM = "telemetry:events"
CHUNK = 1000


async def fill(url: str, count: int) -> None:
    """`count` events of 100 sessions, created now. Each answer mints a response, a
    message and a reasoning item."""
    async with connect(url) as redis:
        for start in range(0, count // 2, CHUNK):
            pipe = redis.pipeline(transaction=False)
            for n in range(start, min(start + CHUNK, count // 2)):
                for fields in _turn(n):
                    pipe.xadd(STREAM, fields)
            await pipe.execute()


def _turn(n: int) -> Iterator[dict[Any, Any]]:
    known = {
        "created_at_ms": time.time_ns() // 1_000_000,
        "session_id": f"s{n % 100}",
    }
    tail = secrets.token_hex(24)
    request = request_event(
        f"r{n:09}",
        model="gpt-5",
        resource_id="openai-1",
        input_tokens=900,
        output_tokens=100,
        total_tokens=1000,
        latency_ms=812.5,
        response_id=f"resp_{tail}",
        minted=tuple(f"{kind}_{tail}" for kind in ("resp", "msg", "rs")),
        **known,
    )
    decision = decision_event(f"r{n:09}", **known)
    for event in (streamed(decision, f"d{n:09}"), streamed(request)):
        yield {
            "kind": event.kind,
            "id": event.id,
            "v": 1,
            "data": event.json,
        }
