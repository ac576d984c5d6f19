"""Settings that are made from others. What each variable takes and refuses is the table
in test_base.py."""

import pytest

from libs.common.errors import SettingError
from libs.common.settings.services import (
    SERVICES,
    GatewaySettings,
    HealthSettings,
    IngestSettings,
    UpSettings,
)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_starts_without_any_variable(service: str) -> None:
    SERVICES[service].read({})


def test_what_the_services_share_they_read_from_the_same_variables() -> None:
    common = {"PROXY_REDIS_URL", "PROXY_TELEMETRY_STREAM", "PROXY_DRAIN_SECONDS"}
    for model in SERVICES.values():
        assert common <= set(model.variables())


def test_paths_to_redact_are_read_once() -> None:
    settings = GatewaySettings.read({"PROXY_REDACT": "input[*].content, metadata"})
    assert len(settings.redacted_paths) == 2
    assert GatewaySettings.read({}).redacted_paths == ()


@pytest.mark.parametrize(
    ("workers", "given_", "each"), [("1", "10", 10), ("3", "10", 4), ("16", "10", 1)]
)
def test_no_worker_is_without_an_upstream_connection(
    workers: str, given_: str, each: int
) -> None:
    settings = GatewaySettings.read(
        {
            "PROXY_GATEWAY_WORKERS": workers,
            "PROXY_MAX_UPSTREAM_CONNECTIONS": given_,
        }
    )
    assert settings.upstream_connections_per_worker == each


def test_a_health_check_stays_below_the_base_url() -> None:
    assert HealthSettings.read({"PROXY_HEALTH_CHECK_PATH": "/models"}).path == "models"


def test_by_default_everything_is_kept() -> None:
    settings = IngestSettings.read({})
    assert (settings.retention_days, settings.prices_file) == (None, None)


@pytest.mark.parametrize("word", [" Auto ", "TRUE", "false"])
def test_simulate_is_one_of_three_words_in_any_case(word: str) -> None:
    found = UpSettings.read({"PROXY_SIMULATE": word}).simulate
    assert found == word.strip().lower()


@pytest.mark.parametrize(
    ("environ", "waits_ms"),
    [
        ({}, (5_000, 0)),
        ({"PROXY_QUEUE_MAX_SECONDS": "0"}, (0, 0)),
        ({"PROXY_QUEUE_MAX_SECONDS": "1.5"}, (1_500, 1_500)),
    ],
)
def test_how_long_requests_may_wait(
    environ: dict[str, str], waits_ms: tuple[int, int]
) -> None:
    settings = GatewaySettings.read(environ)
    assert (settings.queue_ms, settings.bound_queue_ms) == waits_ms


ALERTS = {
    "PROXY_ALERT_WEBHOOK_URL": "https://hooks.example/T0/x/",
    "PROXY_ALERT_WEBHOOK_SECRET": "whsec_" + "QUJD" * 8,
}


def test_alerts_are_signed() -> None:
    settings = IngestSettings.read(ALERTS)
    assert settings.alert_webhook_url == "https://hooks.example/T0/x"
    assert settings.alert_webhook_secret is not None
    unsigned = {"PROXY_ALERT_WEBHOOK_URL": "https://hooks.example"}
    with pytest.raises(SettingError, match="PROXY_ALERT_WEBHOOK_URL: is set without"):
        IngestSettings.read(unsigned)


@pytest.mark.parametrize(
    "secret", ["x" * 23, "whsec_" + "QUJD" * 7, "whsec_" + "*" * 40]
)
def test_what_signs_alerts_cannot_be_guessed(secret: str) -> None:
    with pytest.raises(SettingError, match="PROXY_ALERT_WEBHOOK_SECRET: is neither"):
        IngestSettings.read({**ALERTS, "PROXY_ALERT_WEBHOOK_SECRET": secret})
