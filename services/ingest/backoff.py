"""How long to wait before trying again. Pure: chance is an argument."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `base_s` to `cap_s`. Jitter keeps replicas from returning in
    step: `draw` (0 to 1) takes up to half of the pause away."""

    base_s: float = 0.1
    cap_s: float = 5.0

    def pause_s(self, failures: int, draw: float) -> float:
        full = min(self.cap_s, self.base_s * 2.0 ** min(failures, 30))
        return float(full * (1 - draw / 2))
