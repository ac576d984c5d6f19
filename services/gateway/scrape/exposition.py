"""Writes metrics in Prometheus's text format 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/). Pure.

Not the client library's writer, which takes ten times as long on the event loop."""

from collections.abc import Iterator, Mapping, Sequence

from services.gateway.metrics import Family, Sample
from services.gateway.scrape.snapshot import Values

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(families: Mapping[str, Family], values: Values) -> bytes:
    """The text of all metrics. One without values is described all the same."""
    lines: list[str] = []
    for name, family in families.items():
        lines.append(f"# HELP {name} {_help(family.text)}")
        lines.append(f"# TYPE {name} {family.kind}")
        for sample in values.get(name, ()):
            lines += _lines(family, sample)
    lines.append("")
    return "\n".join(lines).encode()


def _lines(family: Family, sample: Sample) -> Iterator[str]:
    values, numbers = sample
    name = family.name
    pairs = [
        f'{label}="{_escaped(value)}"'
        for label, value in zip(family.labels, values, strict=True)
    ]
    labels = f"{{{','.join(pairs)}}}" if pairs else ""
    if family.kind == "histogram":
        yield from _buckets(family, pairs, numbers)
        yield f"{name}_sum{labels} {_number(numbers[-1])}"
        yield f"{name}_count{labels} {_number(sum(numbers[:-1]))}"
    elif family.kind == "summary":
        yield f"{name}_sum{labels} {_number(numbers[1])}"
        yield f"{name}_count{labels} {_number(numbers[0])}"
    else:
        yield f"{name}{labels} {_number(numbers[0])}"


def _buckets(
    family: Family, pairs: Sequence[str], numbers: Sequence[float]
) -> Iterator[str]:
    before, total = "".join(f"{pair}," for pair in pairs), 0.0
    bounds = (*family.bounds, "+Inf")
    for bound, count in zip(bounds, numbers, strict=False):  # the last is the sum
        total += count
        yield f'{family.name}_bucket{{{before}le="{bound}"}} {_number(total)}'


def _number(value: float) -> str:
    return repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
