"""When traces are on, and what stops the start then."""

import certifi
import pytest
from opentelemetry.sdk.trace import sampling

from libs.common.errors import SettingError
from libs.common.settings import tracing
from libs.common.settings.tracing import SAMPLERS, TracingSettings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        (ENDPOINT, True),
        (TRACES, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", **ENDPOINT}, False),
        ({"OTEL_SDK_DISABLED": "true", **ENDPOINT}, False),
        ({"OTEL_SDK_DISABLED": "false", **ENDPOINT}, True),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, False),
    ],
)
def test_when_they_are_on(environ: dict[str, str], on: bool) -> None:
    assert TracingSettings.read(environ).traces is on


BAD = [
    ("OTEL_TRACES_EXPORTER", "jaeger"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
    ("OTEL_TRACES_SAMPLER", "sometimes"),
    ("OTEL_BSP_SCHEDULE_DELAY", "0"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "2.5"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),  # above the queue's size
]


@pytest.mark.parametrize(("variable", "value"), BAD)
def test_what_stops_the_start(variable: str, value: str) -> None:
    with pytest.raises(SettingError) as refused:
        TracingSettings.read({**ENDPOINT, variable: value})
    message = str(refused.value)
    assert message.startswith(f"{variable}: ")
    assert "\n" not in message


@pytest.mark.parametrize(("variable", "value"), BAD[1:])
def test_while_they_are_off_other_programs_may_use_it(
    variable: str, value: str
) -> None:
    assert not TracingSettings.read({variable: value}).traces


@pytest.mark.parametrize("share", ["1.5", "-0.1", "half"])
def test_a_share_is_from_0_to_1(share: str) -> None:
    environ = {**ENDPOINT, "OTEL_TRACES_SAMPLER_ARG": share}
    TracingSettings.read(environ)
    with pytest.raises(SettingError, match="OTEL_TRACES_SAMPLER_ARG: "):
        TracingSettings.read({**environ, "OTEL_TRACES_SAMPLER": "traceidratio"})


def test_what_is_accepted() -> None:
    settings = TracingSettings.read(
        {
            **TRACES,
            # That of traces has precedence.
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=1",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=2",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": certifi.where(),
            "OTEL_SERVICE_NAME": "ours",
            "OTEL_RESOURCE_ATTRIBUTES": "a=b",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "10",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
        }
    )
    assert settings.traces


def test_the_samplers_are_those_of_the_sdk() -> None:
    assert set(SAMPLERS) == set(sampling._KNOWN_SAMPLERS)


def test_without_the_packages_the_start_stops_with_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "_EXPORTER", "opentelemetry.exporter.nowhere.http")
    with pytest.raises(SettingError) as refused:
        TracingSettings.read(ENDPOINT)
    assert str(refused.value) == (
        "OTEL_EXPORTER_OTLP_ENDPOINT: is set, but the packages that export traces are "
        "not installed. Install opentelemetry-exporter-otlp-proto-http with pip, or "
        "set OTEL_SDK_DISABLED=true"
    )
    assert not TracingSettings.read({}).traces
