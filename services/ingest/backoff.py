"""Exponential backoff with jitter. Pure: randomness is an argument."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double from `base_s` to `cap_s`. Jitter keeps replicas from retrying
    at the same time: `draw` (0 to 1) reduces the delay by up to half."""

    base_s: float = 0.1
    cap_s: float = 5.0

    def pause_s(self, failures: int, draw: float) -> float:
        full = min(self.cap_s, self.base_s * 2.0 ** min(failures, 30))
        return float(full * (1 - draw / 2))
