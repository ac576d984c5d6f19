"""When is a batch due? Pure: the time is an argument."""

from dataclasses import dataclass

IDLE_S = 0.5  # how long an idle read waits; bounds how long a stop goes unnoticed


@dataclass(frozen=True, slots=True)
class BatchRule:
    """A batch is written when it is this big or this old."""

    size: int
    max_age_s: float

    def due(self, count: int, age_s: float) -> bool:
        return count >= self.size or (count > 0 and age_s >= self.max_age_s)

    def room(self, count: int) -> int:
        return max(0, self.size - count)

    def patience_s(self, count: int, age_s: float) -> float:
        """How long to wait for more."""
        if count == 0:
            return IDLE_S
        return min(IDLE_S, max(0.0, self.max_age_s - age_s))
