"""When a resource, or one model on it, may be used: a circuit for each, moved by
verdicts. The rules of services/router/library.lua in Python. Pure; times are
Unix milliseconds."""

from dataclasses import dataclass

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.verdicts import Verdict

NEVER = 9e15  # when a refused key may be tried
FAULTS_IN_A_ROW = 3  # so many open the circuit
PAUSE_CAP = 16  # repeated failure doubles the pause up to so many times
TRIAL_MS = 30_000  # a half-open trial that never reports is over by then
PROBE = "probe"  # who brought a verdict, when no request did


@dataclass(slots=True)
class Pause:
    """Of one model on a resource. It is there from the first pause until a
    success."""

    until_ms: float = 0
    pauses: int = 0
    trial: str = ""
    trial_until: float = 0
    cause: str = ""

    @property
    def ready_ms(self) -> float:
        return self.trial_until if self.trial else self.until_ms


@dataclass(slots=True)
class Health:
    """Of a resource as a whole. `ready_ms` is when it may be tried; 0: now."""

    state: HealthState = HealthState.UNKNOWN
    until_ms: float = 0
    failures: int = 0
    pauses: int = 0
    trial: str = ""
    cause: str = ""
    retry_at: float = 0  # of a key without money: when one request may try
    ready_ms: float = 0


def judge(
    health: Health, verdict: Verdict, pause_ms: float, by: str, now: float
) -> None:
    """Move a resource's circuit. `by` is the request that brought the verdict,
    or `PROBE`. A `limited` that concerns one model goes to `judge_model` and
    comes here as `neutral`."""
    match verdict.kind:
        case "ok":
            _succeed(health, by, now)
        case "refused" | "exhausted":
            _shut(health, verdict, pause_ms, now)
        case _ if health.state is HealthState.UNHEALTHY:
            return
        case "limited":
            _pause(health, verdict, pause_ms, now)
        case "fault":
            _fail(health, verdict, pause_ms, by, now)
        case _:
            _said_nothing(health, by, now)


def judge_model(
    pause: Pause | None, verdict: Verdict, pause_ms: float, by: str, now: float
) -> Pause | None:
    """The same for one model on a resource; returns the pause that results."""
    on_trial = pause is not None and bool(pause.trial) and pause.trial == by
    if verdict.kind == "limited" or (verdict.kind == "fault" and on_trial):
        pause = pause or Pause()
        _lengthen(pause, pause_ms, now)
        pause.trial_until, pause.cause = 0, verdict.cause
        return pause
    if pause is None:
        return None
    if verdict.kind == "ok":
        return None if on_trial or pause.until_ms <= now else pause
    if on_trial:
        pause.trial, pause.trial_until = "", 0
    return pause


def _lengthen(circuit: Health | Pause, pause_ms: float, now: float) -> None:
    """Failing again after a pause doubles the next one; failing during it (answers
    still under way, checks, panic) does not. Deadlines merge by max."""
    during = circuit.until_ms > now
    factor = 1 if during else min(2**circuit.pauses, PAUSE_CAP)
    circuit.until_ms = max(circuit.until_ms, now + pause_ms * factor)
    circuit.pauses += 0 if during else 1
    circuit.trial = ""


def _pause(health: Health, verdict: Verdict, pause_ms: float, now: float) -> None:
    _lengthen(health, pause_ms, now)
    health.state, health.cause = HealthState.DEGRADED, verdict.cause
    health.failures = 0
    health.ready_ms = health.until_ms


def _fail(
    health: Health, verdict: Verdict, pause_ms: float, by: str, now: float
) -> None:
    on_trial = bool(health.trial) and health.trial == by
    if on_trial or health.failures + 1 >= FAULTS_IN_A_ROW:
        _pause(health, verdict, pause_ms, now)
    else:
        health.failures += 1


def _said_nothing(health: Health, by: str, now: float) -> None:
    """A trial that told nothing of the resource: next, please."""
    if health.trial and health.trial == by:
        health.trial, health.ready_ms = "", now


def _shut(health: Health, verdict: Verdict, pause_ms: float, now: float) -> None:
    """A key the upstream refuses, or one without money. A check passes without
    money too: it only lets one request try, at `retry_at` the earliest."""
    retry_at: float = 0
    if verdict.kind == "exhausted":
        during = health.state is HealthState.UNHEALTHY
        factor = 1 if during else min(2**health.pauses, PAUSE_CAP)
        retry_at = max(health.retry_at, now + pause_ms * factor)
        health.pauses += 0 if during else 1
    health.state, health.cause = HealthState.UNHEALTHY, verdict.cause
    health.until_ms = health.ready_ms = NEVER
    health.failures, health.trial, health.retry_at = 0, "", retry_at


def _succeed(health: Health, by: str, now: float) -> None:
    if health.state is HealthState.HEALTHY and health.failures == 0:
        return
    if health.state is HealthState.UNHEALTHY:
        if by != PROBE:  # was under way before the refusal
            return
        if health.retry_at > 0:
            health.state = HealthState.DEGRADED
            health.until_ms = health.ready_ms = max(now, health.retry_at)
            return
    elif health.state is HealthState.DEGRADED and _goes_on(health, by, now):
        return
    _recover(health)


def _goes_on(health: Health, by: str, now: float) -> bool:
    """A pause that still runs is not cut short by an answer that was under way
    before it began; nor does a check prove that there is money."""
    on_trial = bool(health.trial) and health.trial == by
    if health.until_ms > now and not on_trial:
        return True
    return by == PROBE and health.retry_at > 0


def _recover(health: Health) -> None:
    health.state, health.cause, health.trial = HealthState.HEALTHY, "", ""
    health.until_ms = health.ready_ms = health.retry_at = 0
    health.failures = health.pauses = 0
