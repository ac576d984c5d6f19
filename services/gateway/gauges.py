"""Gauges of a gateway's parts, which are read at each scrape."""

import asyncio
from collections.abc import Callable

from libs.common.redis.hot_connection import HotConnection
from services.gateway import metrics
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.proxy.in_flight import InFlight
from services.gateway.server.server import Server
from services.gateway.upstream.client import UpstreamClient


def register_gauges(
    server: Server,
    in_flight: InFlight,
    upstream: UpstreamClient,
    delivery: JournalDelivery,
    redis: HotConnection,
) -> None:
    """Add the gauges. Those of several workers are added up."""
    journal = delivery.journal
    gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
        ("open_connections", "Client connections.", lambda: server.open),
        (
            "body_bytes",
            "Bytes of large request bodies in memory.",
            lambda: server.room.held,
        ),
        ("requests_in_flight", "Active requests.", lambda: len(in_flight.active)),
        (
            "requests_waiting",
            "Requests in queues because upstream keys are at their limits.",
            lambda: len(in_flight.room.waiting) if in_flight.room else 0,
        ),
        ("upstream_connections", "Connections to upstreams.", lambda: upstream.open),
        ("tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks())),
        ("journal_bytes", "Size of the journal.", lambda: journal.size_bytes),
        (
            "journal_held_requests",
            "Ended requests that are not known to be in SQL.",
            lambda: delivery.held,
        ),
        (
            "journal_lost_events",
            "Events dropped because the journal was full.",
            lambda: journal.lost,
        ),
        (
            "journal_corrupt_records",
            "Corrupt records skipped in recovered journals of crashed gateways.",
            lambda: journal.corrupt,
        ),
        ("outbox_events", "Events that wait for Redis.", lambda: len(delivery)),
    )
    for name, text, value in gauges:
        metrics.watch(f"proxy_{name}", text, value)
    metrics.watch(
        "proxy_redis_up",
        "1 while all workers are connected to Redis.",
        lambda: redis.up,
        merge="min",
    )
