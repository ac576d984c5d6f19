"""Settings of traces: OpenTelemetry's own variables. Its SDK reads them from the
environment; here they are only checked, because the SDK replaces an invalid value with
its default and starts."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Self

from pydantic import Field, model_validator

from libs.common.settings.base import Settings, readable_pem, url_of
from libs.common.settings.messages import SettingErrorCarrier

SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_PROTOCOL = "http/protobuf"
_COMPRESSIONS = ("gzip", "deflate", "none")
_PACKAGE = "opentelemetry-exporter-otlp-proto-http"
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_WHOLE = ("otel_delay", "otel_queue", "otel_batch")
_OFF = "or set OTEL_SDK_DISABLED=true"


class TracingSettings(Settings):
    """Traces are exported if a collector or an exporter is named. While they are not,
    the other variables may have any value: they may be meant for other programs."""

    otel_disabled: bool = Field(False, alias="OTEL_SDK_DISABLED")
    otel_exporter: str | None = Field(None, alias="OTEL_TRACES_EXPORTER")
    otel_endpoint: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otel_traces_endpoint: str | None = Field(
        None, alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    otel_protocol: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_PROTOCOL")
    otel_traces_protocol: str | None = Field(
        None, alias="OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    )
    otel_headers: str | None = Field(
        None, alias="OTEL_EXPORTER_OTLP_HEADERS", repr=False
    )
    otel_traces_headers: str | None = Field(
        None, alias="OTEL_EXPORTER_OTLP_TRACES_HEADERS", repr=False
    )
    otel_timeout: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_TIMEOUT")
    otel_compression: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_COMPRESSION")
    otel_certificate: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_CERTIFICATE")
    otel_service_name: str | None = Field(None, alias="OTEL_SERVICE_NAME")
    otel_attributes: str | None = Field(None, alias="OTEL_RESOURCE_ATTRIBUTES")
    otel_sampler: str | None = Field(None, alias="OTEL_TRACES_SAMPLER")
    otel_sampler_arg: str | None = Field(None, alias="OTEL_TRACES_SAMPLER_ARG")
    otel_delay: str | None = Field(None, alias="OTEL_BSP_SCHEDULE_DELAY")
    otel_queue: str | None = Field(None, alias="OTEL_BSP_MAX_QUEUE_SIZE")
    otel_batch: str | None = Field(None, alias="OTEL_BSP_MAX_EXPORT_BATCH_SIZE")

    @property
    def traces(self) -> bool:
        """Whether spans are made and exported."""
        if self.otel_disabled or self.otel_exporter == "none":
            return False
        return bool(
            self.otel_exporter or self.otel_endpoint or self.otel_traces_endpoint
        )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.traces:
            for error in self._problems():
                raise error
        return self

    def _problems(self) -> Iterator[SettingErrorCarrier]:
        yield from self._missing()
        yield from self._one_of("otel_exporter", ("otlp",))
        yield from self._one_of("otel_traces_protocol", (_PROTOCOL,))
        if self.otel_traces_protocol is None:
            yield from self._one_of("otel_protocol", (_PROTOCOL,))
        yield from self._one_of("otel_compression", _COMPRESSIONS)
        yield from self._one_of("otel_sampler", SAMPLERS)
        yield from self._addresses()
        yield from self._number("otel_timeout", "a number of seconds", 0.001, 3600)
        if self.otel_sampler and self.otel_sampler.endswith("traceidratio"):
            yield from self._number("otel_sampler_arg", "a number from 0 to 1", 0, 1)
        for name in _WHOLE:
            yield from self._number(name, "a whole number above 0", 1, 10**7)
        if int(self.otel_batch or 512) > int(self.otel_queue or 2048):
            problem = "is above OTEL_BSP_MAX_QUEUE_SIZE"
            fix = "Lower it: the queue has 2048 spans, if nothing is set"
            yield SettingErrorCarrier(_alias("otel_batch"), problem, fix)

    def _missing(self) -> Iterator[SettingErrorCarrier]:
        names = ("otel_exporter", "otel_traces_endpoint", "otel_endpoint")
        named = next(name for name in names if getattr(self, name))
        if not _installed():
            yield SettingErrorCarrier(
                _alias(named),
                "is set, but the packages that export traces are not installed",
                f"Install {_PACKAGE} with pip, {_OFF}",
            )

    def _addresses(self) -> Iterator[SettingErrorCarrier]:
        for name in ("otel_traces_endpoint", "otel_endpoint"):
            value = getattr(self, name)
            if value and not url_of(value, {"http", "https"}):
                fix = f"Use http://HOST:4318 of a collector, {_OFF}"
                yield SettingErrorCarrier(_alias(name), "is not an http(s) URL", fix)
        if self.otel_certificate and not readable_pem(self.otel_certificate):
            yield SettingErrorCarrier(
                _alias("otel_certificate"),
                "is not a readable PEM file",
                "Name a file with the CA certificate of the collector",
            )

    def _one_of(
        self, name: str, known: tuple[str, ...]
    ) -> Iterator[SettingErrorCarrier]:
        value = getattr(self, name)
        if value is not None and value not in known:
            fix = f"Use {', '.join(known)}, {_OFF}"
            yield SettingErrorCarrier(_alias(name), "is not supported", fix)

    def _number(
        self, name: str, wanted: str, least: float, most: float
    ) -> Iterator[SettingErrorCarrier]:
        value = getattr(self, name)
        try:
            number = float(value or most)
            if name in _WHOLE:
                number = int(value or most)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            fix = f"Use {wanted}, or unset it"
            yield SettingErrorCarrier(_alias(name), f"is not {wanted}", fix)


def _alias(name: str) -> str:
    return TracingSettings.model_fields[name].alias or name


def _installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False
