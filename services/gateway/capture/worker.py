"""The thread that packs captured bodies and sends them to Redis in batches.

It sends no bodies while Redis is short of memory, because the ledger needs that memory
more."""

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import structlog

from libs.common.bodies.redaction import Redactor
from libs.common.contracts.payloads import Payload
from libs.common.errors import RedisAway
from libs.common.redis.capture_stream import Backlog, PayloadStream, Refused
from libs.common.settings.services import GatewaySettings
from services.gateway.capture.capture import Budget, Capture
from services.gateway.capture.packing import Packer, without_bodies
from services.gateway.capture.recorder import DROPPED, CaptureRecorder, Inbox
from services.gateway.metrics import Counter

log = structlog.get_logger()

SENT = Counter("proxy_captured_total", "Captured requests handed to ingest.")

LOOK_EVERY_S = 2.0  # between two measurements of the backlog in Redis
NICE = 10
PAUSE_S = 0.5  # before Redis is tried again
# Of Redis's `maxmemory`: above it no bodies are sent, so that the ledger has room.
MEMORY_SHARE = 0.8
MOST_ENTRIES = 200_000  # in the stream, including markers

FULL_THERE = "the backlog in Redis was full"
UNMEASURED = "the backlog in Redis could not be measured"


class Stream(Protocol):
    """The payload stream. Its calls block."""

    def append(self, payloads: Sequence[Payload]) -> int: ...

    def backlog(self) -> Backlog: ...

    def close(self) -> None: ...


class CaptureWorker:
    """Sends queued captures to Redis, in a thread of its own."""

    def __init__(
        self, inbox: Inbox, packer: Packer, stream: Stream, backlog_bytes: int
    ) -> None:
        self._inbox = inbox
        self._packer = packer
        self._stream = stream
        self._backlog_bytes = backlog_bytes
        # A daemon thread, so that process exit does not wait for Redis.
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._late = threading.Event()  # set when the time to finish is over
        self._looked_at = float("-inf")
        self._sent_bytes = 0  # since the last measurement, about
        self._closed_for: str | None = None  # why no bodies are sent at present
        self._mute = False  # not even markers are sent
        self._away = False
        self._refused = False

    def start(self) -> None:
        self._thread.start()

    def finish(self, within_s: float) -> None:
        self._inbox.close()
        if not self._thread.is_alive():
            return
        self._thread.join(within_s)
        self._late.set()
        self._thread.join(PAUSE_S)
        if self._thread.is_alive():  # blocked in a Redis call
            _say_lost(self._inbox.waiting)

    def _run(self) -> None:
        if sys.platform == "linux":
            # On a busy machine the event loop gets the core first.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        more = True
        while more:
            batch, more = self._inbox.take()
            if batch:
                self._serve(batch)
        self._stream.close()

    def _serve(self, batch: list[Capture]) -> None:
        held = sum([capture.held for capture in batch])
        try:
            if self._late.is_set():
                _say_lost(len(batch))
                return
            self._deliver([self._packed(capture) for capture in batch], held)
        except Exception:
            # One unexpected body must not end the capture of all others.
            log.exception(
                "captured bodies could not be packed", action="capture_failed"
            )
            DROPPED.inc("failed", len(batch))
        finally:
            self._inbox.budget.free(held)

    def _packed(self, capture: Capture) -> Payload:
        if capture.request_dropped or capture.response_dropped:
            DROPPED.inc("queue")
        return self._packer.pack(capture)

    def _deliver(self, payloads: list[Payload], held: int) -> None:
        """`held`: bytes of their captures."""
        while not self._late.is_set():
            try:
                refused = self._stream.append(self._admitted(payloads, held))
            except RedisAway as error:
                self._lost(error)
                self._late.wait(PAUSE_S)
                continue
            except Refused as error:
                self._complain(str(error))
                refused = len(payloads)
            self._delivered(len(payloads), refused)
            return
        _say_lost(len(payloads))

    def _delivered(self, payloads: int, refused: int) -> None:
        self._away = False
        if refused:
            DROPPED.inc("refused", refused)
            self._complain(f"{refused} of {payloads} requests")
            return
        self._refused = False
        if self._closed_for is None:
            SENT.inc(by=payloads)
        else:
            DROPPED.inc("backlog", payloads)

    def _admitted(self, payloads: list[Payload], held: int) -> list[Payload]:
        """The payloads to send: reduced to markers while Redis has no room for bodies,
        and none while it has no room for markers either."""
        now = time.monotonic()
        # A burst must not overrun the bound between two measurements.
        rash = self._sent_bytes > self._backlog_bytes // 8
        if rash or now - self._looked_at >= LOOK_EVERY_S:
            self._look()
            self._looked_at, self._sent_bytes = now, 0
        if self._closed_for is None:
            self._sent_bytes += held
            return payloads
        if self._mute:
            return []
        return [without_bodies(payload, self._closed_for) for payload in payloads]

    def _look(self) -> None:
        try:
            backlog = self._stream.backlog()
        except Refused as error:
            self._close_for(UNMEASURED, str(error))
            return
        self._mute = backlog.entries > MOST_ENTRIES
        full = backlog.bytes > self._backlog_bytes or backlog.memory > MEMORY_SHARE
        full = full or self._mute
        self._close_for(FULL_THERE if full else None, str(backlog))

    def _close_for(self, why: str | None, seen: str) -> None:
        if why != self._closed_for:
            text = (
                "captured bodies are sent again"
                if why is None
                else ("captured bodies are not sent to Redis")
            )
            log.warning(text, action="capture_room", closed_for=why, seen=seen)
        self._closed_for = why

    def _lost(self, error: RedisAway) -> None:
        if not self._away:
            log.warning(
                "captured bodies wait for Redis",
                action="capture_waits",
                error=str(error),
            )
        self._away = True

    def _complain(self, cause: str) -> None:
        if not self._refused:
            log.warning(
                "Redis refused captured bodies", action="capture_refused", cause=cause
            )
        self._refused = True


def _say_lost(requests: int) -> None:
    if requests:
        DROPPED.inc("stopped", requests)
        log.error(
            "captured bodies were not sent before shutdown",
            action="capture_lost",
            requests=requests,
        )


def make_worker(settings: GatewaySettings, inbox: Inbox) -> CaptureWorker:
    packer = Packer(settings.max_capture_bytes, Redactor(settings.redacted_paths))
    stream = PayloadStream(
        settings.redis_url, settings.telemetry_stream, settings.redis_keys
    )
    return CaptureWorker(inbox, packer, stream, settings.capture_backlog_bytes)


def make_capturer(settings: GatewaySettings) -> CaptureRecorder:
    """The gateway's capturer, which `start` sets to work."""
    inbox = Inbox(Budget(settings.capture_queue_bytes))
    limit = settings.max_capture_bytes
    return CaptureRecorder(
        limit, inbox, make_worker(settings, inbox) if limit else None
    )
