"""Limits how often similar lines are logged, so that a flood of requests cannot fill a
disk, or push everything else out of rotated logs. Metrics count what is left out."""

import time
from collections.abc import Callable

MOST_A_MINUTE = 10  # lines of one cause
MOST_CAUSES = 256  # others share one limit
WINDOW_S = 60.0


class LogLimit:
    """Decides which lines are written."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Cause -> when its minute began, and how many lines it had since then.
        self._seen: dict[str, list[float]] = {}

    def take(self, cause: str) -> int | None:
        """None: leave the line out. Else how many were left out before it."""
        now, seen = self._clock(), self._seen
        if cause not in seen and len(seen) >= MOST_CAUSES:
            cause = ""
        minute = seen.setdefault(cause, [now, 0])
        left_out = 0
        if now - minute[0] >= WINDOW_S:
            left_out = max(int(minute[1]) - MOST_A_MINUTE, 0)
            minute[:] = now, 0
        minute[1] += 1
        return left_out if minute[1] <= MOST_A_MINUTE else None


def more(left_out: int) -> dict[str, int]:
    """The field of a line that says how many like it were left out."""
    return {"left_out": left_out} if left_out else {}
