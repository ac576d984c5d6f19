"""Upstream URLs and derived settings. test_base.py has the table of accepted values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.settings.base import SettingErrorCarrier
from libs.common.settings.services import (
    SERVICES,
    GatewaySettings,
    HealthSettings,
    IngestSettings,
    UpSettings,
    checked_url,
)


@pytest.mark.parametrize(
    ("given_", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        (" http://10.0.0.1:9000/v1// ", "http://10.0.0.1:9000/v1"),
        ("http://[::1]/v1", "http://[::1]/v1"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_url_that_can_be_one(given_: str, url: str) -> None:
    assert checked_url("base_url", given_) == url


@pytest.mark.parametrize(
    "given_",
    [
        "",
        "api.openai.com/v1",
        "ftp://h/v1",
        "http://",
        "http://h:0/v1",
        "http://h:99999/v1",
        "http://h:port/v1",
        "http://[::1/v1",
        "http://user@h/v1",
        "http://user:hush@h/v1",
        "http://h/v1?key=hush",
        "http://h/v1#part",
        "http://h/v 1",
        "http://bücher.example/v1",
    ],
)
def test_a_url_that_cannot_be_one_is_refused_without_its_secrets(given_: str) -> None:
    with pytest.raises(SettingErrorCarrier) as error:
        checked_url("base_url", given_)
    assert str(error.value).startswith("base_url: ")
    assert "hush" not in str(error.value)


@given(st.text(max_size=40))
def test_whatever_is_no_url_is_refused_in_one_way(text: str) -> None:
    try:
        found = checked_url("base_url", text)
    except SettingErrorCarrier:
        return
    assert found.startswith(("http://", "https://"))
    assert found == checked_url("base_url", found)


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
