"""What ingest counts, by the names that dashboards use."""

from prometheus_client import generate_latest

from services.ingest import metrics

NAMES = (
    "proxy_ingest_events_total",
    "proxy_ingest_batches_total",
    "proxy_ingest_dead_letters_total",
    "proxy_alerts_total",
    "proxy_alerts_dropped_total",
    "proxy_ingest_failures_total",
    "proxy_ingest_lag_seconds",
    "proxy_ingest_backlog_events",
    "proxy_ingest_write_seconds_count",
)


def test_every_metric_is_exposed_by_its_name() -> None:
    metrics.EVENTS.labels("request").inc(0)
    metrics.FAILURES.labels("redis").inc(0)
    metrics.ALERTS.labels("sent").inc(0)
    metrics.BACKLOG.labels("events").set(0)
    text = generate_latest().decode()
    for name in NAMES:
        assert f"\n{name}" in text
