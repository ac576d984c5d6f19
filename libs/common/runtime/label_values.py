"""Bounds the values of a metric's label, because callers choose some of them."""

import re

OTHER = "other"  # the value of all that have no series of their own
_PLAIN = re.compile(r"[ -~]{1,100}")  # longer or stranger values are `other`


class LabelValues:
    """The values of one label that have series of their own: the first `most` that were
    admitted since the process started."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._admitted: set[str] = set()

    def of(self, value: str | None, *, admits: bool = True) -> str:
        """The label value for `value`: itself if it has or gets series of its own, else
        `other`; empty for None or an empty one. `admits`: whether it may get one."""
        if not value:
            return ""
        if value in self._admitted:
            return value
        if (
            not admits
            or len(self._admitted) >= self._most
            or not _PLAIN.fullmatch(value)
        ):
            return OTHER
        self._admitted.add(value)
        return value
