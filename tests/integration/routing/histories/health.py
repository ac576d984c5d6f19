"""The health of resources, and time, which ends pauses."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import multiple, rule

from libs.common.routing.circuit_breaker import NEVER
from libs.common.upstream_answers.verdicts import Verdict
from tests.integration.routing.histories.both import ASKED, Both
from tests.integration.routing.histories.values import (
    DRAWS,
    EXHAUSTED,
    FAULT,
    GATEWAYS,
    LIMITED,
    MODELS,
    OK,
    RESOURCES,
    TOKENS,
    VERDICTS,
)


class Health(Both):
    """What checks find, and how time passes."""

    @rule(number=st.integers(1, RESOURCES), verdict=VERDICTS)
    def check(self, number: int, verdict: Verdict) -> None:
        self.run(self.lua.verdict(f"openai-{number}", verdict))
        self.python.verdict(f"openai-{number}", verdict, self.now)

    @rule(
        number=st.integers(1, RESOURCES),
        verdict=st.sampled_from([FAULT, EXHAUSTED, *LIMITED]),
        times=st.integers(2, 7),
        late_ms=st.sampled_from([-1, 0, 1]),
    )
    def check_keeps_failing(
        self, number: int, verdict: Verdict, times: int, late_ms: int
    ) -> None:
        """Each check runs about when the previous cooldown is over."""
        for _ in range(times):
            self.check(number, verdict)
            health = self.python.health.get(f"openai-{number}")
            if health and self.now < health.ready_ms < NEVER:
                self.now = int(health.ready_ms) + late_ms
            elif health and health.retry_at:
                self.check(number, OK)  # half open

    @rule(
        target=ASKED,
        verdict=st.sampled_from([FAULT, EXHAUSTED, *LIMITED]),
        number=st.integers(1, RESOURCES),
        letters=st.sampled_from(["", "c", "s", "dc"]),
        encrypted=st.booleans(),
        model=MODELS,
        gateway=GATEWAYS,
        draw=DRAWS,
        tokens=TOKENS,
    )
    def a_sockets_key_dies(
        self, verdict: Verdict, number: int, letters: str, **given: Any
    ) -> Any:
        """The next turn of a WebSocket finds its resource unable to serve."""
        for _ in range(3):
            self.check(number, verdict)
        more: dict[str, Any] = {"pool": None, "session": "", "bound": ()}
        more["socket"] = f"openai-{number}", letters
        asked = self._acquire(lost=False, resolved=True, **more, **given)
        return asked if asked is not None else multiple()

    @rule(ms=st.sampled_from([1, 500, 1_001, 5_000, 31_000, 120_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(late_ms=st.sampled_from([-1, 0, 1]), which=DRAWS)
    def something_comes_due(self, late_ms: int, which: int) -> None:
        """A cooldown or a trial ends about now, where rules differ by a millisecond."""
        circuits = [*self.python.health.values()]
        ends = [health.ready_ms for health in circuits] + [
            pause.ready_ms
            for paused in self.python.cooldowns.values()
            for pause in paused.values()
        ]
        ends += self.python.limits.ends
        coming = sorted(e for e in ends if self.now < e < NEVER)
        if coming:
            self.now = int(coming[which % len(coming)]) + late_ms
