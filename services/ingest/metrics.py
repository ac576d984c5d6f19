"""Metrics of ingest."""

from prometheus_client import Counter, Gauge, Histogram

from libs.common.runtime.service_gauges import REDIS_UP
from libs.common.runtime.sql_gauge import SQL_UP

EVENTS = Counter(
    "proxy_ingest_events_total", "Events stored, replays included", ["kind"]
)
BATCHES = Counter("proxy_ingest_batches_total", "Batches committed")
DEAD_LETTERS = Counter(
    "proxy_ingest_dead_letters_total", "Entries that could not be stored"
)
ALERTS = Counter(
    "proxy_alerts_total", "Alerts that the webhook accepted or did not", ["result"]
)
ALERTS_DROPPED = Counter(
    "proxy_alerts_dropped_total", "Alerts that were not kept, because too many wait"
)
FAILURES = Counter(
    "proxy_ingest_failures_total",
    "Calls that failed because Redis or SQL was unavailable",
    ["what"],
)
LAG = Gauge(
    "proxy_ingest_lag_seconds",
    "Time from append to commit of the oldest event in the last batch",
)
BACKLOG = Gauge(
    "proxy_ingest_backlog_events",
    "Entries not stored yet: events, and captured bodies",
    ["stream"],
)
UP = {"redis": REDIS_UP, "store": SQL_UP}
WRITE_SECONDS = Histogram("proxy_ingest_write_seconds", "Writing one batch to SQL")
