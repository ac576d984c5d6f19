"""The table that a run prints."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench import routing
from bench.idle import Idle
from bench.parts import telemetry
from bench.parts.measure import Figures
from bench.routing import Cost

Measured = Mapping[str, Mapping[str, Figures]]

_SERVERS = ("direct", "nginx", "gateway")
SATURATED = 0.9  # of a core
_LINE = "{:<46}{:>11}{:>11}{:>11}{:>12}"
_ROUTING = _LINE


@dataclass(frozen=True, slots=True)
class Found:
    """All results. `workers`: two workers / one, if it could be measured. `ledger`:
    the cost of telemetry."""

    measured: Measured
    idle: Mapping[str, Sequence[Idle]]
    workers: float | None
    ledger: telemetry.Cost
    costs: routing.Measured


def render(found: Found) -> str:
    """All figures, medians of the rounds."""
    measured = found.measured
    lines = [_LINE.format("", *_SERVERS, "gw ÷ nginx"), "-" * 91]
    lines += _throughput("JSON, 32 connections", "request", measured["json"])
    lines += _latency(measured["alone"])
    lines += _throughput(
        "streams of 50 events, no gap, 32 at once", "stream", measured["streams"]
    )
    lines += _pacing(measured["paced"])
    lines += _idle(found.idle)
    if found.workers is not None:
        lines += ["two workers ÷ one, each with the same share of a core"]
        lines += [f"  requests/s, or by CPU per request {found.workers:>48.2f}"]
    lines += [
        "CPU per JSON request ÷ that of a gateway without a ledger",
        f"  decisions and requests {found.ledger.events:>57.2f}",
        f"  with captured bodies {found.ledger.bodies:>59.2f}",
    ]
    lines += ["", *_routing(found.costs)]
    return "\n".join(lines + _remarks(measured))


def _throughput(
    title: str, unit: str, by_server: Mapping[str, Figures]
) -> Sequence[str]:
    saturated = any(_limited_by_load(f) for f in by_server.values())
    return [
        title,
        _row(f"  {unit}s/s" + (" (* load side full)" if saturated else ""), by_server,
             "rate", mark=True),
        _row(f"  CPU-ms/{unit}, server", by_server, "cpu", digits=4),
        _row(f"  CPU-ms/{unit}, valkey", by_server, "valkey", digits=4, ratio=False),
        _row(f"  {unit}s/s for a whole core (1000/CPU-ms)",
             {n: {"core": 1000 / f["cpu"]} for n, f in by_server.items() if f["cpu"]},
             "core"),
    ]  # fmt: skip


def _latency(by_server: Mapping[str, Figures]) -> Sequence[str]:
    added = _over_direct(by_server)
    return [
        "JSON, one connection",
        _row("  latency p50, µs", by_server, "p50"),
        _row("  latency p99, µs", by_server, "p99"),
        _row("  added over direct p50, µs", added, "p50"),
        _row("  added over direct p99, µs", added, "p99"),
    ]


def _pacing(by_server: Mapping[str, Figures]) -> Sequence[str]:
    added = _over_direct(by_server)
    return [
        "200 streams, 50 events 10 ms apart",
        _row("  first byte p50, µs", by_server, "p50"),
        _row("  added first byte p50, µs", added, "p50"),
        _row("  CPU-µs/event, server", by_server, "chunk", digits=1),
    ]


def _idle(by_server: Mapping[str, Sequence[Idle]]) -> Sequence[str]:
    lines = ["idle streams"]
    for position, each in enumerate(by_server["gateway"]):
        title = f"  memory of {each.streams:,}, MB above none"
        at = {name: {"mb": idle[position].mb} for name, idle in by_server.items()}
        lines.append(_row(title, at, "mb", digits=1))
        if each.dropped:
            lines.append(f"  dropped by the gateway: {each.dropped}")
    return lines


def _over_direct(by_server: Mapping[str, Figures]) -> Mapping[str, Figures]:
    base = by_server["direct"]
    return {
        name: {key: figures[key] - base[key] for key in ("p50", "p99")}
        for name, figures in by_server.items()
        if name != "direct"
    }


def _row(
    title: str,
    by_server: Mapping[str, Figures],
    key: str,
    *,
    digits: int = 0,
    ratio: bool = True,
    mark: bool = False,
) -> str:
    values = {name: figures.get(key) for name, figures in by_server.items()}
    cells = []
    for name in _SERVERS:
        star = "*" if mark and _limited_by_load(by_server.get(name, {})) else ""
        cells.append(_number(values.get(name), digits) + star)
    above, below = values.get("gateway"), values.get("nginx")
    times = f"{above / below:.2f}" if ratio and above and below else ""
    return _LINE.format(title, *cells, times).rstrip()


def _number(value: float | None, digits: int) -> str:
    if not value or math.isnan(value):
        return "-"
    return f"{value:,.{digits}f}"


def _limited_by_load(figures: Figures) -> bool:
    """Whether the load side was saturated while the server was not."""
    busy, load = figures.get("server busy", 1), figures.get("load busy", 0)
    return load > SATURATED > busy


_ACQUIRE = "acquire by load"


def _routing(measured: routing.Measured) -> list[str]:
    first, last = min(measured), max(measured)
    title = "routing, on the Redis server; resources:"
    lines = [_ROUTING.format(title, *measured, f"{last} ÷ {first}")]
    for what, read in (("CPU", _cpu), ("executing", _executing)):
        empty = [f"{read(costs['empty']):.1f}" for costs in measured.values()]
        acquire = [f"{read(costs[_ACQUIRE]):.1f}" for costs in measured.values()]
        lines.append(_ROUTING.format(f"  {_ACQUIRE}, {what}, µs", *acquire, ""))
        lines.append(_ROUTING.format(f"  empty function, {what}, µs", *empty, ""))
        lines.extend(
            _routing_row(f"  {kind} ÷ empty, {what}", kind, read, measured)
            for kind in measured[first]
            if kind != "empty"
        )
    return lines


def _routing_row(
    title: str, kind: str, read: Callable[[Cost], float], measured: routing.Measured
) -> str:
    cells = [f"{read(c[kind]) / read(c['empty']):.1f}" for c in measured.values()]
    of_kind = [read(measured[size][kind]) for size in sorted(measured)]
    return _ROUTING.format(title, *cells, f"{of_kind[-1] / of_kind[0]:.2f}")


def _cpu(cost: Cost) -> float:
    return cost.cpu_us


def _executing(cost: Cost) -> float:
    return cost.executing_us


def _remarks(measured: Measured) -> list[str]:
    json = measured["json"]
    busy = "; ".join(
        f"{name} {figures['server busy']:.0%}, load side {figures['load busy']:.0%}"
        for name, figures in json.items()
    )
    others = max(f["others busy"] for by in measured.values() for f in by.values()
                 if "others busy" in f)  # fmt: skip
    noise = f"Of a core, other processes took up to {others:.0%}"
    verdict = (
        "quiet enough." if others < 0.1 else "trust only ratios, and repeat the run."
    )
    return ["", f"Busy share of a core (JSON): {busy}.", f"{noise}: {verdict}"]
