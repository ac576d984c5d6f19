"""What this gateway learns of accounts' limits: from the headers of answers, and how
many tokens requests take."""

from collections.abc import Sequence
from typing import Final

from libs.common.headers import Header
from libs.common.upstream_answers.rate_limits import told_by
from services.gateway import metrics

AGAIN_S = 1.0  # limits of which plenty is left are read once in this time
BYTES_PER_TOKEN: Final = 4
LEARNING: Final = 0.1  # the weight of the newest request
# Tokens for one estimated: the upstream may have the input already.
WIDEST: Final = 1_000.0
MOST_MODELS: Final = 1_000  # clients choose model names


class LimitNotes:
    """Of this process. Times are seconds of `time.perf_counter`."""

    def __init__(self) -> None:
        self._reported: dict[tuple[str, str], float] = {}
        self._ratios: dict[str, float] = {}

    def told(
        self,
        resource_id: str,
        model: str,
        headers: Sequence[Header],
        heard_at: float,
        now: float,
    ) -> str:
        """The limits that an answer's headers name, for the release of its lease; empty
        if there is nothing to report. `heard_at`: when the answer began."""
        reported, key = self._reported, (resource_id, model)
        if heard_at - reported.get(key, -AGAIN_S) < AGAIN_S:
            return ""
        told = told_by(headers, metrics.count_ignored_limit)
        if told is None or told.is_plenty:
            if key not in reported and len(reported) >= MOST_MODELS:
                del reported[next(iter(reported))]
            reported[key] = heard_at
        return "" if told is None else told.encoded(int((now - heard_at) * 1000))

    # Estimates ---------------------------------------------------------------

    def estimate(self, model: str, size: int, reserved: int) -> int:
        """The tokens that a request takes of a limit: those of its `size` in bytes, and
        the longest answer that it allows, which the upstream reserves."""
        ratio = self._ratios.get(model, 1.0)
        return int(size * ratio) // BYTES_PER_TOKEN + reserved

    def took(self, model: str, size: int, tokens: int) -> None:
        """A request of that size took so many tokens, without what was reserved."""
        ratios = self._ratios
        if model not in ratios and len(ratios) >= MOST_MODELS:
            del ratios[next(iter(ratios))]
        before = ratios.get(model, 1.0)
        ratio = BYTES_PER_TOKEN * tokens / (size or 1)
        ratio = min(ratio, WIDEST)
        ratios[model] = before + LEARNING * (ratio - before)
