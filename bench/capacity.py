"""The arithmetic of docs/capacity.md, for any mix of requests:

- `python -m bench.capacity`: replicas, Redis and Postgres for some rates, computed from
  the measured costs below; `--help` lists the mix
- `python -m bench.capacity sizes`: measures bytes in Redis and in Postgres
- `python -m bench.capacity shards`: simulates keys that several shards use"""

import argparse
import asyncio
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RATES = (100, 10_000, 1_000_000)  # requests a minute
BUSY = 0.6  # how much of a core to plan with
DAY_S, MINUTE_S = 86_400, 60
KIB, MIB, GB = 1024, 1024**2, 1e9

# Measured: docs/benchmarks.md (CPU, memory of streams), `sizes` (bytes), and the
# resident memory of an idle gateway.
JSON_MS = 0.0502  # gateway, CPU of a request
EVENT_MS = 0.0154  # gateway, CPU of an event that arrives alone
REDIS_MS = 0.0444  # CPU of a streamed request
INGEST_MS = 0.0116  # CPU of an event
INGEST_S = 38_288  # events in a second, one process on one core
COPY_S = 52_976  # events that one connection copies into Postgres
GATEWAY_MIB, STREAM_KIB = 78, 15
LEASE_B, ID_B = 510, 140
DECISION_B, REQUEST_B = 650, 1_196  # in the telemetry stream, four resources
ROW_B = {"requests": 1_357, "decisions": 1_280}
ID_ROW_B, SESSION_ROW_B = 324, 508

# Bounds in the code.
CONNECTIONS = 10_000  # PROXY_MAX_CONNECTIONS
AFFINITY_KEYS = 1_000_000  # MOST_KEYS in services/router/functions/affinity.lua
BACKLOG_S = 2  # events that wait for ingest, usually


@dataclass(frozen=True, slots=True)
class Mix:
    """What a request is."""

    events: int = 200  # of its stream, each arriving alone
    seconds: float = 15.0
    kib_in: float = 60.0
    kib_out: float = 48.0
    packed: float = 5.0  # a body's size over that of the captured one
    ids: int = 3  # that an answer mints
    turns: int = 20  # requests of a session

    @property
    def gateway_ms(self) -> float:
        return JSON_MS + self.events * EVENT_MS

    @property
    def row_bytes(self) -> float:
        """In Postgres, without bodies."""
        return sum(ROW_B.values()) + self.ids * ID_ROW_B + SESSION_ROW_B / self.turns

    @property
    def body_bytes(self) -> float:
        return (self.kib_in + self.kib_out) * KIB / self.packed


@dataclass(frozen=True, slots=True)
class Need:
    """What a rate needs."""

    mix: Mix
    a_minute: int

    @property
    def rate(self) -> float:
        return self.a_minute / MINUTE_S

    @property
    def in_flight(self) -> float:
        return self.rate * self.mix.seconds

    @property
    def gateway_cores(self) -> float:
        return self.rate * self.mix.gateway_ms / 1000

    @property
    def gateways(self) -> int:
        """Processes of one core; two at least, so that one may restart."""
        by_cpu = math.ceil(self.gateway_cores / BUSY)
        return max(2, by_cpu, math.ceil(self.in_flight / (CONNECTIONS * BUSY)))

    @property
    def gateway_bytes(self) -> float:
        return self.gateways * GATEWAY_MIB * MIB + self.in_flight * STREAM_KIB * KIB

    @property
    def network_gbit(self) -> float:
        """Each way, with clients and upstreams together."""
        return self.rate * (self.mix.kib_in + self.mix.kib_out) * KIB * 8 / 1e9

    @property
    def redis_cores(self) -> float:
        return self.rate * REDIS_MS / 1000

    @property
    def affinity_keys(self) -> float:
        """Of a day, or the bound."""
        new = self.rate * (self.mix.ids + 1 / self.mix.turns)
        return min(AFFINITY_KEYS, new * DAY_S)

    @property
    def affinity_s(self) -> float:
        """How long Redis remembers an id."""
        new = self.rate * (self.mix.ids + 1 / self.mix.turns)
        return min(DAY_S, AFFINITY_KEYS / new)

    @property
    def redis_bytes(self) -> float:
        leases, keys = self.in_flight * LEASE_B, self.affinity_keys * ID_B
        return leases + keys + self.stream_bytes_s * BACKLOG_S

    @property
    def stream_bytes_s(self) -> float:
        return self.rate * (DECISION_B + REQUEST_B)

    @property
    def events(self) -> float:
        """Telemetry events in a second."""
        return 2 * self.rate

    @property
    def ingest_cores(self) -> float:
        return self.events * INGEST_MS / 1000

    @property
    def ingests(self) -> int:
        return max(2, math.ceil(self.events / (INGEST_S * BUSY)))

    @property
    def day_gb(self) -> float:
        return self.rate * DAY_S * self.mix.row_bytes / GB

    @property
    def bodies_day_gb(self) -> float:
        return self.rate * DAY_S * self.mix.body_bytes / GB


def _lines(needs: Sequence[Need]) -> Iterator[Sequence[str]]:
    mix = needs[0].mix
    yield ("requests a minute", "", *(f"{n.a_minute:,}" for n in needs))
    rows = (
        ("requests/s", "a minute ÷ 60", "rate", ",.1f"),
        ("in flight", f"rate * {mix.seconds:g} s", "in_flight", ",.0f"),
        ("**gateways**, cores", f"rate * {mix.gateway_ms:.2f} ms", "gateway_cores",
         ",.2f"),
        ("gateway processes", f"cores ÷ {BUSY}; in flight ÷ {CONNECTIONS * BUSY:,.0f}",
         "gateways", ",d"),
        ("their memory, GB", f"{GATEWAY_MIB} MiB each + in flight * {STREAM_KIB} KiB",
         "gateway_bytes", "GB"),
        ("network each way, Gbit/s", f"rate * {mix.kib_in + mix.kib_out:g} KiB",
         "network_gbit", ",.3f"),
        ("**Redis**, cores of one", f"rate * {REDIS_MS} ms", "redis_cores", ",.4f"),
        ("ids remembered for, minutes",
         f"{AFFINITY_KEYS:,} ÷ (rate * {mix.ids + 1 / mix.turns:.2f}), at most a day",
         "affinity_s", "min"),
        ("memory, GB",
         f"in flight * {LEASE_B} B + keys * {ID_B} B + {BACKLOG_S} s of events",
         "redis_bytes", "GB"),
        ("more for each hour without SQL, GB",
         f"rate * 3600 * {DECISION_B + REQUEST_B:,} B", "stream_bytes_s", "hour"),
        ("**ingest**, events/s", "2 * rate", "events", ",.0f"),
        ("cores", f"events * {INGEST_MS * 1000:g} µs", "ingest_cores", ",.3f"),
        ("processes", f"events ÷ {INGEST_S * BUSY:,.0f}, at least 2", "ingests", ",d"),
        ("**Postgres**, GB a day", f"rate * 86,400 * {mix.row_bytes:,.0f} B", "day_gb",
         ",.2f"),
        ("captured bodies, GB a day", f"rate * 86,400 * {mix.body_bytes / 1000:.1f} kB",
         "bodies_day_gb", ",.2f"),
    )  # fmt: skip
    for name, how, value, form in rows:
        yield (name, how, *(_shown(getattr(need, value), form) for need in needs))


def _shown(value: float, form: str) -> str:
    match form:
        case "GB":
            return f"{value / GB:,.2f}"
        case "hour":
            return f"{value * 3600 / GB:,.2f}"
        case "min":
            return f"{value / MINUTE_S:,.1f}"
    return format(value, form)


def table(mix: Mix, rates: Sequence[int]) -> str:
    """The needs of some rates, as Markdown."""
    head, *rows = _lines([Need(mix, rate) for rate in rates])
    rule = ["---", "---", *("--:" for _ in rates)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def thresholds(mix: Mix) -> str:
    """The rates at which single parts are full, as Markdown."""
    parts = (
        ("one gateway process", 1000 / mix.gateway_ms),
        ("`PROXY_MAX_CONNECTIONS` of one gateway", CONNECTIONS / mix.seconds),
        ("one ingest process", INGEST_S / 2),
        ("one Redis", 1000 / REDIS_MS),
        ("one writer of Postgres (COPY, one at a time)", COPY_S / 2),
    )
    lines = [f"| full | requests/s | requests a minute | with {BUSY:.0%} used |"]
    lines.append("|---|--:|--:|--:|")
    lines += [
        f"| {name} | {rate:,.0f} | {rate * 60:,.0f} | {rate * 60 * BUSY:,.0f} |"
        for name, rate in parts
    ]
    return "\n".join(lines)


def shards() -> str:
    """The simulation, as Markdown."""
    from bench.parts.shards import simulate  # noqa: PLC0415

    lines = ["| shards | sessions | busiest shard | busiest of 64 keys |"]
    lines.append("|--:|---|--:|--:|")
    for turns, named in ((1, "none"), (20, "of 20 requests")):
        for count in (1, 2, 3, 6):
            found = simulate(count, turns)
            lines.append(
                f"| {count} | {named} | {found.busiest_shard:.2f} "
                f"| {found.busiest_key:.2f} |"
            )
    return "\n".join(lines)


def sizes(count: int) -> str:
    """Measured bytes, as Markdown."""
    from bench.parts.sizes import measure  # noqa: PLC0415

    found = []
    for resources in (4, 20):
        with tempfile.TemporaryDirectory(prefix="bench-sizes-") as folder:
            found.append(asyncio.run(measure(Path(folder), resources, count)))
    lines = [f"| bytes; {count:,} requests | 4 keys | 20 keys |", "|---|--:|--:|"]
    for place in ("redis", "postgres"):
        for name in getattr(found[0], place):
            each = " | ".join(f"{getattr(f, place)[name]:,.0f}" for f in found)
            lines.append(
                f"| {'row of ' if place == 'postgres' else ''}{name} | {each} |"
            )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity")
    parser.add_argument(
        "what", nargs="?", default="table", choices=("table", "sizes", "shards")
    )
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    parser.add_argument("--requests", type=int, default=20_000, help="for sizes")
    for name, value in asdict(Mix()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value)
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    if given.what == "sizes":
        print(sizes(given.requests))
    elif given.what == "shards":
        print(shards())
    else:
        mix = Mix(**{name: getattr(given, name) for name in asdict(Mix())})
        print(table(mix, given.rates), thresholds(mix), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
