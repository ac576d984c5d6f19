"""Events kept until they are safe: what Redis did not take is sent again when
it is back, also when it came back empty."""

import asyncio
from collections import deque

import structlog

from libs.common.contracts import EVENT_VERSION
from libs.common.errors import RedisAway
from libs.common.redis_client import Refused, SharedConnection

log = structlog.get_logger()

MOST_KEPT = 200_000
BATCH = 500

Entry = tuple[str, str, bytes]  # kind, event id, data


class Outbox:
    """A bounded queue in memory. When it overflows the oldest go, counted."""

    def __init__(self, redis: SharedConnection, stream: str) -> None:
        self._redis = redis
        self._stream = stream
        self._kept: deque[Entry] = deque()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, kind: str, event_id: str, data: bytes) -> None:
        """Hold an event that Redis has not confirmed."""
        if len(self._kept) >= MOST_KEPT:
            self._kept.popleft()
            self.lost += 1
        self._kept.append((kind, event_id, data))

    async def flush(self) -> int:
        """Send what is kept, oldest first; returns how many went. An event sent
        twice is stored once, so what is in doubt is sent again."""
        sent = 0
        while self._kept and self._redis.up:
            batch = [self._kept.popleft() for _ in range(min(BATCH, len(self._kept)))]
            futures = [self._append(entry) for entry in batch]
            done = 0
            try:
                for future in futures:
                    await future
                    done += 1
            except (RedisAway, Refused):
                break
            finally:
                # Whatever was not confirmed stays, cancellation included.
                self._kept.extendleft(reversed(batch[done:]))
                sent += done
        if sent:
            log.info("outbox sent", action="outbox_sent", events=sent)
        return sent

    def _append(self, entry: Entry) -> "asyncio.Future[object]":
        kind, event_id, data = entry
        return self._redis.call(
            "XADD", self._stream, "*",
            "kind", kind, "id", event_id, "v", EVENT_VERSION, "data", data,
        )  # fmt: skip
