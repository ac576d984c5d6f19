"""What a worker counted so far, and the sum of several workers. Pure."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from services.gateway.metrics import Family, Sample

Values = dict[str, list[Sample]]
"""Samples by the name of their metric."""


class Snapshot(msgspec.Struct):
    """The metrics of one worker process at one time."""

    pid: int
    values: Values

    def encoded(self) -> bytes:
        """JSON. Numbers must be no booleans."""
        return _encode(self)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Snapshot).decode


def decoded(data: bytes) -> Snapshot:
    """Raises `msgspec.MsgspecError`: another version wrote it."""
    return _decode(data)


def added(families: Mapping[str, Family], parts: Iterable[Values]) -> Values:
    """One gateway's values of those of its workers: sums, and of some gauges the
    smallest or largest."""
    sums: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for values in parts:
        for name, samples in values.items():
            family = families.get(name)
            if family is not None:
                _add(family, sums.setdefault(name, {}), samples)
    return {name: list(samples.items()) for name, samples in sums.items()}


def counted(families: Mapping[str, Family], values: Values) -> Values:
    """Without gauges: what a successor of this worker continues from."""
    return {
        name: samples
        for name, samples in values.items()
        if name in families and families[name].kind != "gauge"
    }


def _add(
    family: Family, so_far: dict[tuple[str, ...], list[float]], samples: list[Sample]
) -> None:
    for labels, numbers in samples:
        before = so_far.get(labels)
        if before is None:
            so_far[labels] = list(numbers)
        elif len(before) == len(numbers):
            so_far[labels] = [
                _MERGES[family.merge](pair)
                for pair in zip(before, numbers, strict=True)
            ]


_MERGES: dict[str, Callable[[Iterable[float]], float]] = {
    "sum": sum,
    "min": min,
    "max": max,
}
