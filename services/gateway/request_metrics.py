"""Counts requests: how they ended, how long they took, and their attempts.

Plain integers in lists and dictionaries, because a counter of the client library takes
a lock and longer than routing. A request costs one look-up when it is settled, of the
requests that ended alike; these are added to the series when the series are read.

Series are bounded. A model gets series of its own once an answer reported its usage, so
that invented names do not; what is beyond `MOST_MODELS` and `MOST_RESOURCES` is counted
as `other`."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, get_args

from libs.common.contracts.events import Outcome
from libs.common.runtime.label_values import OTHER, LabelValues
from libs.common.upstream_answers.verdicts import VerdictKind
from services.gateway.metrics import Family, Histogram, Sample, register

MOST_MODELS = 50
MOST_RESOURCES = 500
MOST_PENDING = 1_000
LONGEST_MODEL = 100

# The buckets of OpenTelemetry's GenAI metrics: gen_ai.server.request.duration,
# gen_ai.server.time_to_first_token and gen_ai.server.time_per_output_token.
DURATION_S = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
    81.92,
)  # fmt: skip
FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
)  # fmt: skip
PER_TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
OVERHEAD_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0)

_OUTCOMES = {outcome.value: i for i, outcome in enumerate(Outcome)}
_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_FAILED = _OUTCOMES["failed"]
_VERDICTS = get_args(VerdictKind)


class _Times:
    """What is timed of requests, in milliseconds."""

    __slots__ = ("duration", "first_token", "per_token")

    def __init__(self) -> None:
        self.duration = Histogram(DURATION_S, 1000)
        self.first_token = Histogram(FIRST_TOKEN_S, 1000)
        self.per_token = Histogram(PER_TOKEN_S, 1000)

    def add(self, other: "_Times") -> None:
        self.duration.add(other.duration)
        self.first_token.add(other.first_token)
        self.per_token.add(other.per_token)


class _Model:
    """The series of a model."""

    __slots__ = ("ended", "label", "times")

    def __init__(self, label: str) -> None:
        self.label = label
        self.ended = [0] * (len(_OUTCOMES) * len(_CLASSES))
        self.times = _Times()


class _Resource:
    """The series of a resource, by the last attempt of a request."""

    __slots__ = ("attempts", "ended", "label", "times")

    def __init__(self, label: str) -> None:
        self.label = label
        self.ended = [0] * len(_OUTCOMES)
        self.attempts = dict.fromkeys(_VERDICTS, 0)
        self.times = _Times()


class Ended(Protocol):
    """What is counted of a request that ended: fields of `ledger.record.Record`."""

    model: str | None
    resource_id: str | None
    outcome: str | None
    status_code: int | None
    latency_ms: float | None
    first_token_ms: float | None
    overhead_ms: float | None
    input_tokens: int | None
    output_tokens: int | None


# Model, resource, outcome, status, verdict, and whether usage is unknown.
_Alike = tuple[str | None, str | None, str | None, int | None, VerdictKind | None, bool]
_pending: dict[_Alike, _Times] = {}  # what the series lack yet

_no_model, _other_model = _Model(""), _Model(OTHER)
_models: dict[str, _Model] = {"": _no_model, OTHER: _other_model}
_model_values = LabelValues(MOST_MODELS)
_other_resource = _Resource(OTHER)
_resources: dict[str, _Resource] = {OTHER: _other_resource}
_resource_values = LabelValues(MOST_RESOURCES)
overhead: Final = Histogram(OVERHEAD_S, 1000)


def request_ended(request: Ended, verdict: VerdictKind | None = None) -> None:
    """Count a request that ended. `verdict`: of its last attempt, unless that was
    counted."""
    alike = (
        request.model, request.resource_id, request.outcome, request.status_code,
        verdict, request.input_tokens is None,
    )  # fmt: skip
    try:
        times = _pending[alike]
    except KeyError:
        times = _new(alike)
    ms = request.latency_ms or 0.0
    times.duration.observe(ms)
    sent_ms = request.overhead_ms
    if sent_ms is not None:
        overhead.observe(sent_ms)
    first_ms = request.first_token_ms
    if first_ms is not None:
        times.first_token.observe(first_ms)
        tokens = request.output_tokens
        if tokens is not None and tokens > 1:
            # Of the tokens after the first.
            times.per_token.observe((ms - first_ms) / (tokens - 1))


def _new(alike: _Alike) -> _Times:
    if len(alike[0] or "") > LONGEST_MODEL:  # callers choose it
        alike = (OTHER, *alike[1:])
    if len(_pending) >= MOST_PENDING:
        _add_up()
    return _pending.setdefault(alike, _Times())


def _add_up() -> None:
    """Add what is pending to the series: first what has usage, which lets its model
    have series of its own."""
    for alike in sorted(_pending, key=lambda each: each[5]):
        _add(alike, _pending[alike])
    _pending.clear()


def _add(alike: _Alike, times: _Times) -> None:
    name, resource_id, outcome_name, status, verdict, unused = alike
    model = _model_of(name or "", admits=not unused)
    outcome = _OUTCOMES.get(outcome_name or "failed", _FAILED)
    step = 0 if status is None or status >= 600 else status // 100
    count = sum(times.duration.counts)
    model.ended[outcome * len(_CLASSES) + step] += count
    model.times.add(times)
    if resource_id:
        resource = _resource_of(resource_id)
        resource.ended[outcome] += count
        resource.times.add(times)
        if verdict is not None:
            resource.attempts[verdict] += count


def attempt_ended(resource_id: str | None, verdict: VerdictKind) -> None:
    """Count an attempt whose request goes on."""
    _resource_of(resource_id or "").attempts[verdict] += 1


def _model_of(name: str, *, admits: bool) -> _Model:
    found = _models.get(name)
    if found is not None:
        return found
    if _model_values.of(name, admits=admits) != name:
        return _other_model
    return _models.setdefault(name, _Model(name))


def _resource_of(name: str) -> _Resource:
    found = _resources.get(name)
    if found is not None:
        return found
    if _resource_values.of(name) != name:
        return _other_resource
    return _resources.setdefault(name, _Resource(name))


def _all_models() -> list[_Model]:
    _add_up()
    return list(_models.values())


def _all_resources() -> list[_Resource]:
    _add_up()
    return list(_resources.values())


def _requests() -> list[Sample]:
    return [
        ((model.label, outcome, status), [count])
        for model in _all_models()
        for outcome, i in _OUTCOMES.items()
        for status, count in zip(
            _CLASSES, model.ended[i * len(_CLASSES) :], strict=False
        )
        # The total of a new gateway is 0, not unknown.
        if count or (model is _no_model and status == "none")
    ]


def _timed(
    series: Callable[[], Sequence[_Model | _Resource]],
    read: Callable[[_Times], list[float]],
) -> Callable[[], list[Sample]]:
    def samples() -> list[Sample]:
        found = [(each.label, read(each.times)) for each in series()]
        return [((label,), numbers) for label, numbers in found if any(numbers)]

    return samples


def _resource_requests() -> list[Sample]:
    return [
        ((resource.label, outcome), [resource.ended[i]])
        for resource in _all_resources()
        for outcome, i in _OUTCOMES.items()
        if resource.ended[i]
    ]


def _attempts() -> list[Sample]:
    return [
        ((resource.label, verdict), [count])
        for resource in _all_resources()
        for verdict, count in resource.attempts.items()
        if count or resource is _other_resource
    ]


_FAMILIES: tuple[tuple[Family, Callable[[], list[Sample]]], ...] = (
    (
        Family(
            "proxy_requests_total",
            "counter",
            "Requests that ended, by requested model, outcome and class of the status.",
            ("model", "outcome", "status_class"),
        ),
        _requests,
    ),
    (
        Family(
            "proxy_request_duration_seconds",
            "histogram",
            "Seconds from a request's arrival to its end.",
            ("model",),
            DURATION_S,
        ),
        _timed(_all_models, lambda times: times.duration.numbers()),
    ),
    (
        Family(
            "proxy_time_to_first_token_seconds",
            "histogram",
            "Seconds from a request's arrival to the first output of its stream.",
            ("model",),
            FIRST_TOKEN_S,
        ),
        _timed(_all_models, lambda times: times.first_token.numbers()),
    ),
    (
        Family(
            "proxy_time_per_output_token_seconds",
            "histogram",
            "Seconds for each output token of a stream after the first.",
            ("model",),
            PER_TOKEN_S,
        ),
        _timed(_all_models, lambda times: times.per_token.numbers()),
    ),
    (
        Family(
            "proxy_resource_requests_total",
            "counter",
            "Requests that ended, by the resource of their last attempt and outcome.",
            ("resource", "outcome"),
        ),
        _resource_requests,
    ),
    (
        Family(
            "proxy_resource_duration_seconds",
            "summary",
            "Seconds from a request's arrival to its end, by the resource of its last "
            "attempt.",
            ("resource",),
        ),
        _timed(_all_resources, lambda times: times.duration.totals()),
    ),
    (
        Family(
            "proxy_resource_time_to_first_token_seconds",
            "summary",
            "Seconds from a request's arrival to the first output of its stream.",
            ("resource",),
        ),
        _timed(_all_resources, lambda times: times.first_token.totals()),
    ),
    (
        Family(
            "proxy_attempts_total",
            "counter",
            "Attempts, by resource and verdict.",
            ("resource", "verdict"),
        ),
        _attempts,
    ),
    (
        Family(
            "proxy_overhead_seconds",
            "histogram",
            "Seconds from a request's arrival until it was sent upstream.",
            bounds=OVERHEAD_S,
        ),
        lambda: [((), overhead.numbers())],
    ),
)
for _family, _read in _FAMILIES:
    register(_family, _read)
