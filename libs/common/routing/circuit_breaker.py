"""Circuit breakers: when a resource, or one model on it, may be used. The rules of
services/router/functions/health.lua in Python. Pure; times are Unix milliseconds.

Refused keys and probes occur only where health checks run, so not in a gateway without
Redis. They are here because they are part of the same state machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from libs.common.contracts.catalogue import HealthState
from libs.common.upstream_answers.verdicts import Verdict

NEVER = 9e15  # for a refused key
FAULTS_IN_A_ROW = 3  # open the circuit
COOLDOWN_CAP = 16  # repeated failures double the cooldown up to this factor
TRIAL_MS = 30_000  # after which a half-open trial without a report is over
PROBE = "probe"  # the source of a verdict that no request reported


@dataclass(slots=True)
class Cooldown:
    """Of one model on a resource, from the first rate limit until a success."""

    until_ms: float = 0
    cooldowns: int = 0
    trial: str = ""
    trial_until: float = 0
    cause: str = ""
    shared: bool = False  # by all resources of the account

    @property
    def ready_ms(self) -> float:
        return self.trial_until if self.trial else self.until_ms


@dataclass(slots=True)
class Health:
    """Of a resource as a whole. `ready_ms`: when it may be tried; 0: now."""

    state: HealthState = HealthState.UNKNOWN
    until_ms: float = 0
    failures: int = 0
    cooldowns: int = 0
    trial: str = ""
    cause: str = ""
    retry_at: float = 0  # of a key without credit: when one request may try it
    ready_ms: float = 0


def judge(
    health: Health, verdict: Verdict, cooldown_ms: float, by: str, now: float
) -> None:
    """Apply a verdict to a resource's circuit. `by` is the request that reported it, or
    `PROBE`. A `limited` of one model goes to `judge_model` and comes here as
    `neutral`."""
    match verdict.kind:
        case "ok":
            _succeed(health, by, now)
        case "refused" | "exhausted":
            _shut(health, verdict, cooldown_ms, now)
        case _ if health.state is HealthState.UNHEALTHY:
            return
        case "limited":
            _cool_down(health, verdict, cooldown_ms, now)
        case "fault":
            _fail(health, verdict, cooldown_ms, by, now)
        case _:
            _end_trial(health, by, now)


def judge_model(
    cooldown: Cooldown | None, verdict: Verdict, cooldown_ms: float, by: str, now: float
) -> Cooldown | None:
    """The same for one model on a resource; returns the resulting cooldown."""
    on_trial = is_trial(cooldown, by)
    if verdict.kind == "limited" or (verdict.kind == "fault" and on_trial):
        cooldown = cooldown or Cooldown()
        _lengthen(cooldown, cooldown_ms, now)
        cooldown.trial_until, cooldown.cause = 0, verdict.cause
        return cooldown
    if cooldown is None:
        return None
    if verdict.kind == "ok":
        return None if on_trial or cooldown.until_ms <= now else cooldown
    if on_trial:
        cooldown.trial, cooldown.trial_until = "", 0
    return cooldown


def is_trial(cooldown: Cooldown | None, by: str) -> bool:
    return cooldown is not None and bool(cooldown.trial) and cooldown.trial == by


def share_trial(
    siblings: Iterable[str], cooling: Mapping[str, Cooldown], cooldown: Cooldown
) -> None:
    """Give the other resources of an account the trial of a cooldown that they
    share."""
    if not cooldown.shared:
        return
    for id_ in siblings:
        other = cooling.get(id_)
        if other and other.shared:
            other.trial, other.trial_until = cooldown.trial, cooldown.trial_until


@dataclass(slots=True)
class Report:
    """A verdict on a resource. `siblings`: the other resources of its account.
    `of_account`: its limit is the account's."""

    resource_id: str
    verdict: Verdict
    cooldown_ms: int
    by: str
    siblings: Sequence[str] = ()
    of_account: bool = False


def judge_cooling(cooling: dict[str, Cooldown], report: Report, now: float) -> None:
    """Apply a verdict to the cooldowns of a model, by resource."""
    id_, verdict, by = report.resource_id, report.verdict, report.by
    before = cooling.get(id_)
    on_trial = is_trial(before, by)
    after = judge_model(before, verdict, report.cooldown_ms, by, now)
    if after is None:
        ended = cooling.pop(id_, None)
        for other in report.siblings if ended and ended.shared else ():
            if other in cooling and cooling[other].shared:
                del cooling[other]
        return
    cooling[id_] = after
    longer = verdict.kind == "limited" or (verdict.kind == "fault" and on_trial)
    if longer or (on_trial and verdict.kind != "ok"):
        share_trial(report.siblings, cooling, after)
    if longer:
        after.shared = verdict.kind == "limited" and report.of_account
        if after.shared:
            _cool_siblings(report.siblings, cooling, after)


def _cool_siblings(
    siblings: Iterable[str], cooling: dict[str, Cooldown], cooldown: Cooldown
) -> None:
    for id_ in siblings:
        other = cooling.get(id_)
        if other is None or other.until_ms <= cooldown.until_ms:
            cooling[id_] = replace(cooldown)


def _lengthen(circuit: Health | Cooldown, cooldown_ms: float, now: float) -> None:
    """A failure after a cooldown doubles the next one. A failure during it (responses
    that were under way, checks, panic) does not. The later deadline wins."""
    during = circuit.until_ms > now
    factor = 1 if during else min(2**circuit.cooldowns, COOLDOWN_CAP)
    circuit.until_ms = max(circuit.until_ms, now + cooldown_ms * factor)
    circuit.cooldowns += 0 if during else 1
    circuit.trial = ""


def _cool_down(
    health: Health, verdict: Verdict, cooldown_ms: float, now: float
) -> None:
    _lengthen(health, cooldown_ms, now)
    health.state, health.cause = HealthState.DEGRADED, verdict.cause
    health.failures = 0
    health.ready_ms = health.until_ms


def _fail(
    health: Health, verdict: Verdict, cooldown_ms: float, by: str, now: float
) -> None:
    on_trial = bool(health.trial) and health.trial == by
    if on_trial or health.failures + 1 >= FAULTS_IN_A_ROW:
        _cool_down(health, verdict, cooldown_ms, now)
    else:
        health.failures += 1


def _end_trial(health: Health, by: str, now: float) -> None:
    """If this was a trial it proved nothing: the next request is a trial too."""
    if health.trial and health.trial == by:
        health.trial, health.ready_ms = "", now


def _shut(health: Health, verdict: Verdict, cooldown_ms: float, now: float) -> None:
    """The key was refused, or has no credit left. A check passes without credit, so
    after it one request tries the key, at `retry_at` at the earliest."""
    retry_at: float = 0
    if verdict.kind == "exhausted":
        during = health.state is HealthState.UNHEALTHY
        factor = 1 if during else min(2**health.cooldowns, COOLDOWN_CAP)
        retry_at = max(health.retry_at, now + cooldown_ms * factor)
        health.cooldowns += 0 if during else 1
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
    elif health.state is HealthState.DEGRADED and _continues(health, by, now):
        return
    _recover(health)


def _continues(health: Health, by: str, now: float) -> bool:
    """A response that was under way before the cooldown began does not end it. A check
    does not prove that there is credit."""
    on_trial = bool(health.trial) and health.trial == by
    if health.until_ms > now and not on_trial:
        return True
    return by == PROBE and health.retry_at > 0


def _recover(health: Health) -> None:
    health.state, health.cause, health.trial = HealthState.HEALTHY, "", ""
    health.until_ms = health.ready_ms = health.retry_at = 0
    health.failures = health.cooldowns = 0
