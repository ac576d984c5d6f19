"""The selection policy in Python: what the gateway uses while Redis is away,
and the reference for `services/router/library.lua`. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Draw = Callable[[int], int]  # draw(n) gives 0 <= i < n


@dataclass(frozen=True, slots=True)
class Option:
    """A resource as the policy sees it."""

    resource_id: str
    weight: float
    in_flight: int = 0
    available: bool = True

    @property
    def load(self) -> float:
        """Work per unit of weight, were the next request placed here."""
        return (self.in_flight + 1) / self.weight


def least_loaded(options: Sequence[Option], draw: Draw) -> Option | None:
    """Least (in flight + 1) / weight among the available; ties are drawn, so
    that replicas do not herd."""
    available = [option for option in options if option.available]
    if not available:
        return None
    lowest = min(option.load for option in available)
    tied = [option for option in available if option.load == lowest]
    return tied[draw(len(tied))]
