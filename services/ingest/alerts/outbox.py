"""Alerts in SQL until the webhook accepted them.

Ingest adds an alert before it acknowledges the event, so none is lost when it dies.
One of all ingest processes of all shards sends them, each at least once: `id` tells a
receiver which it has already."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from libs.common.contracts.events import Row, StreamedEvent
from libs.common.errors import StoreAway
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.store.interface import Fetch
from libs.common.store.rows import instant, iso
from services.ingest.alerts.alert import alert_of
from services.ingest.alerts.sender import NotAccepted
from services.ingest.metrics import ALERTS, ALERTS_DROPPED

log = structlog.get_logger()

EVERY_S = 1.0  # between two looks for alerts
MOST_WAITING = 1_000  # further alerts are dropped
AT_ONCE = 20
LONGEST_PAUSE = timedelta(minutes=10)
GIVEN_UP_AFTER = timedelta(days=3)
KEPT = timedelta(days=7)


class Alerts:
    """Adds the alerts of a batch. Logs when it begins to drop them, and the first one
    that is kept again."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._dropped = 0  # since the last one that was kept

    async def add(self, events: Iterable[StreamedEvent]) -> None:
        """Safe to repeat. Raises `StoreAway`."""
        for event in events:
            alert = alert_of(event)
            if alert is not None:
                at = iso(instant(alert.created_at_ms))
                values = {"id": alert.id, "body": alert.body.decode(), "at": at}
                added = await self._fetch("add_alert", {**values, "most": MOST_WAITING})
                if added:
                    self._kept()
                elif not await self._fetch("has_alert", {"id": alert.id}):
                    self._drop()

    def _drop(self) -> None:
        if not self._dropped:
            log.warning(
                "alerts are dropped, because too many wait for the webhook",
                action="alerts_dropped",
                waiting=MOST_WAITING,
            )
        self._dropped += 1
        ALERTS_DROPPED.inc()

    def _kept(self) -> None:
        if self._dropped:
            log.info(
                "alerts are kept again",
                action="alerts_kept",
                dropped=self._dropped,
            )
        self._dropped = 0


class Leadership(Protocol):
    async def hold(self) -> bool: ...

    async def release(self) -> None: ...


class Webhook(Protocol):
    async def send(self, id_: str, body: bytes) -> None: ...

    async def close(self) -> None: ...


class AlertDelivery:
    """Sends what waits, oldest first."""

    def __init__(self, fetch: Fetch, webhook: Webhook, leadership: Leadership) -> None:
        self._fetch = fetch
        self._webhook = webhook
        self._leadership = leadership

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.step(datetime.now(UTC), stop)
            except StoreAway as error:
                log.debug("alerts not read", action="alerts_unread", error=str(error))
            await wait_for_stop(stop, EVERY_S)
        await self._webhook.close()
        try:
            await self._leadership.release()
        except StoreAway:
            log.debug("lease of alerts not released", action="lease_left")

    async def step(self, now: datetime, stop: asyncio.Event) -> None:
        """Ends with the first alert that is not accepted: so will be the others.
        Raises `StoreAway`."""
        since = iso(now - GIVEN_UP_AFTER)
        values = {"now": iso(now), "since": since, "rows": AT_ONCE}
        due = await self._fetch("due_alerts", values)
        if due and not await self._leadership.hold():
            return
        if due:  # another process may have sent some before this one had the lease
            due = await self._fetch("due_alerts", values)
        for row in due:
            if stop.is_set() or not await self._leadership.hold():
                return
            if not await self._send(row, now):
                return
        await self._fetch("drop_alerts", {"before": iso(now - KEPT)})

    async def _send(self, row: Row, now: datetime) -> bool:
        id_, attempts = row["id"], row["attempts"]
        try:
            await self._webhook.send(id_, row["body"].encode())
        except NotAccepted as error:
            ALERTS.labels("failed").inc()
            if attempts == 0:
                log.warning(
                    "the alert webhook did not accept an alert",
                    action="alert_failed",
                    alert=id_,
                    cause=str(error),
                )
            pause = min(timedelta(seconds=5 * 2 ** min(attempts, 10)), LONGEST_PAUSE)
            due = iso(now + pause)
            await self._fetch("alert_failed", {"id": id_, "due": due})
            return False
        ALERTS.labels("sent").inc()
        await self._fetch("alert_sent", {"id": id_, "at": iso(now)})
        return True
