"""Cooldowns of single models on resources, in memory: what services/router/functions/
health.lua keeps in `pauses:<model>`. Pure; times are Unix milliseconds."""

from collections.abc import Sequence

from libs.common.routing.account_limits import ASK_AGAIN_MS
from libs.common.routing.circuit_breaker import (
    TRIAL_MS,
    Cooldown,
    Report,
    judge_cooling,
    share_trial,
)

MOST_COOLING = 1000  # models in cooldown, as in functions/health.lua


class ModelCooldowns(dict[str, dict[str, Cooldown]]):
    """Model digest -> resource -> cooldown."""

    def begin_trial(
        self, model: str, resource_id: str, siblings: Sequence[str], by: str, now: float
    ) -> None:
        """The request `by` is the half-open trial of a model on a resource. `siblings`:
        the other resources of its account."""
        cooling = self.get(model, {})
        cooldown = cooling.get(resource_id)
        if cooldown:
            cooldown.trial, cooldown.trial_until = by, now + TRIAL_MS
            share_trial(siblings, cooling, cooldown)

    def judge(self, model: str, report: Report, now: float) -> None:
        """Apply a verdict. One of the resources of an account that is limited is tried
        once a second."""
        if report.of_account:
            report.cooldown_ms = max(report.cooldown_ms, ASK_AGAIN_MS)
        cooling = self.pop(model, {})
        judge_cooling(cooling, report, now)
        if not cooling:
            return
        # Clients choose model names, so their number is bounded: the oldest goes.
        if len(self) >= MOST_COOLING:
            del self[next(iter(self))]
        self[model] = cooling
