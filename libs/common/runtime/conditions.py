"""Degraded states of a service: logs when one begins and when it ends."""

import time
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger()


class Conditions:
    """The parts that are impaired now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    @property
    def parts(self) -> tuple[str, ...]:
        """Impaired parts."""
        return tuple(self._since)

    def note(self, problems: Mapping[str, str]) -> None:
        """Take in what is impaired now: the problem by part. A part that is not named
        works."""
        now = self._clock()
        for part in [part for part in self._since if part not in problems]:
            lasted_s = round(now - self._since.pop(part), 1)
            log.info(
                "a part works again",
                action="degraded_ended",
                part=part,
                lasted_s=lasted_s,
            )
        for part, problem in problems.items():
            if part not in self._since:
                self._since[part] = now
                log.warning(
                    "a part is impaired",
                    action="degraded_began",
                    part=part,
                    problem=problem,
                )
