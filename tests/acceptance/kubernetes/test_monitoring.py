"""Metrics that the chart uses. Alerts: tests/acceptance/observability."""

from tests.acceptance.kubernetes.conftest import rendered
from tests.support.kubernetes.chart import ROOT, of_kind


def test_the_autoscaler_reads_a_metric_of_the_gateway() -> None:
    (scaler,) = of_kind(rendered("everything"), "HorizontalPodAutoscaler").values()
    _, by_requests = scaler["spec"]["metrics"]
    assert by_requests["pods"]["metric"]["name"] == "proxy_requests_in_flight"
    assert '"requests_in_flight"' in (ROOT / "services/gateway/gauges.py").read_text()
