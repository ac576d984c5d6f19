"""Decides what `up` starts, from the environment and what `observe` found. (pure)"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from libs.cli.commands import SERVICES, service_command, simulator_command
from libs.common.admin_token import FILE
from libs.common.errors import SettingError, shown
from libs.common.settings import resources
from libs.common.settings.base import CommonSettings, DatabaseSettings
from libs.common.settings.services import GatewaySettings, UpSettings

LONGEST_SOCKET = 103  # bytes of the path, the limit on macOS; Linux allows four more

SIMULATED_KEYS = {
    "sk-sim-1": "sim-account-a",
    "sk-sim-2": "sim-account-a",
    "sk-sim-3": "sim-account-b",
    "sk-sim-4": "sim-account-b",
}

# Shutdown takes at most 15 s. Groups stop one after the other, the gateway first, Redis
# last: 8 + 4 + 1 s, and 1 s for the readiness listener.
GATEWAY_DRAIN_SECONDS = 5.0
SERVICE_DRAIN_SECONDS = 1.0
STOP_MARGIN_SECONDS = 3


class RedisSeen(StrEnum):
    """What answers at Redis's default address. The value is shown to the operator."""

    ABSENT = "nothing answers there"
    EMPTY = "it is empty"
    OURS = "it holds this proxy's keys"
    SHARED = "other stacks of this proxy use it"
    FOREIGN = "another application uses it"
    TOO_OLD = "it is too old: functions need Redis 7 or later"
    LOCKED = "it requires a password, or this user lacks permissions"
    READ_ONLY = "it is a read-only replica"

    @property
    def usable(self) -> bool:
        return self in {RedisSeen.EMPTY, RedisSeen.OURS}


@dataclass(frozen=True)
class Seen:
    """What `observe` found on this machine."""

    redis: RedisSeen
    simulator_port: int
    valkey: str  # path of the embedded server's binary


@dataclass(frozen=True)
class Program:
    """One process under supervisord."""

    name: str
    group: str
    command: tuple[str, ...]
    stop_seconds: int
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The programs to start, additions to their environment, and lines of the
    banner."""

    programs: tuple[Program, ...]
    environment: Mapping[str, str]
    choices: tuple[tuple[str, str], ...]  # subject, choice and reason


def with_own_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """With the defaults that differ under `up`: only the gateway listens beyond
    loopback, because only it has clients on other machines."""
    internal = environ.get("PROXY_INTERNAL_HOST") or "127.0.0.1"
    return {**environ, "PROXY_INTERNAL_HOST": internal}


def decide(environ: Mapping[str, str], seen: Seen, data_dir: Path) -> Plan:
    """Uses what is configured and embeds the rest."""
    parts = (
        _upstream(environ, seen),
        _redis(environ, seen, data_dir),
        _database(environ, data_dir),
        _admin(environ, data_dir),
    )
    additions = {"PROXY_DATA_DIR": str(data_dir)}
    for part in parts:
        additions |= part.environment
    merged = {**environ, **additions}
    embedded = tuple(program for part in parts for program in part.programs)
    services = tuple(_service(name, merged) for name in SERVICES)
    return Plan(
        programs=embedded + services,
        environment=additions,
        choices=tuple(choice for part in parts for choice in part.choices),
    )


def _upstream(environ: Mapping[str, str], seen: Seen) -> Plan:
    gateway = GatewaySettings.read(environ)
    configured = resources.resources_from_environment(
        environ, gateway.upstream_base_url
    )
    simulate = UpSettings.read(environ).simulate
    own_upstream = environ.get("PROXY_UPSTREAM_BASE_URL")
    wanted = simulate == "auto" and not configured and not own_upstream
    if simulate == "true" or wanted:
        return _simulated(environ, seen.simulator_port, forced=bool(configured))
    keys = f"{len(configured)} key" + ("" if len(configured) == 1 else "s")
    said = f"{gateway.upstream_base_url}, {keys}"
    if not configured:
        said += ": set OPENAI_API_KEY, or add a provider on the dashboard"
    return Plan((), {}, (("upstream", said),))


def _simulated(environ: Mapping[str, str], port: int, *, forced: bool) -> Plan:
    keys = ",".join(f"{key}={account}" for key, account in SIMULATED_KEYS.items())
    # An empty value counts as unset, so the simulator never gets a real key.
    blank = {name: "" for name in environ if name.startswith(resources.KEY)}
    url = f"http://127.0.0.1:{port}/v1"
    why = "PROXY_SIMULATE=true" if forced else "no OPENAI_API_KEY set"
    return Plan(
        programs=(
            Program(
                name="simulator",
                group="base",
                command=tuple(simulator_command("127.0.0.1", port, keys)),
                stop_seconds=1,
            ),
        ),
        environment={
            **blank,
            resources.KEYS: ",".join(SIMULATED_KEYS),
            resources.ACCOUNTS: ",".join(SIMULATED_KEYS.values()),
            "PROXY_UPSTREAM_BASE_URL": url,
        },
        choices=(("upstream", f"SIMULATED upstream ({why}), {url}"),),
    )


def _redis(environ: Mapping[str, str], seen: Seen, data_dir: Path) -> Plan:
    configured = environ.get("PROXY_REDIS_URL")
    default = GatewaySettings.read({}).redis_url
    if configured and not stands_in(configured, seen.redis):
        said = f"{without_password(configured)} (PROXY_REDIS_URL)"
        return Plan((), {}, (("redis", said),))
    if seen.redis.usable:
        said = f"{default} ({seen.redis.value})"
        return Plan((), {"PROXY_REDIS_URL": default}, (("redis", said),))
    run = data_dir / "run"
    place = run / "redis.sock"
    if len(os.fsencode(place)) > LONGEST_SOCKET:
        raise SettingError(
            "PROXY_DATA_DIR",
            f"gives {shown(place)}, which is too long for a socket",
            f"Choose a shorter path, so that the socket's has at most {LONGEST_SOCKET} "
            "bytes, or set PROXY_REDIS_URL",
        )
    url = f"unix://{quote(str(place))}"
    command = (
        # A socket in a private folder instead of a port: other users of this machine
        # cannot connect, and no password is needed.
        *(seen.valkey, "--port", "0"),
        *("--unixsocket", str(place), "--unixsocketperm", "700"),
        # No persistence: the ledger is in SQL, and the rest is rebuilt.
        *("--save", "", "--appendonly", "no", "--dir", str(run)),
        # Histograms by command, which nothing here reads, take a hundredth of its CPU.
        *("--latency-tracking", "no"),
    )
    said = f"embedded, {url} (at {default}: {seen.redis.value})"
    return Plan(
        programs=(Program("redis", "base", command, stop_seconds=1),),
        environment={"PROXY_REDIS_URL": url},
        choices=(("redis", said),),
    )


def stands_in(url: str, state: RedisSeen) -> bool:
    """Whether the embedded server takes the place of a configured one: a file of
    settings may name the default address, and in a container nothing answers there."""
    return state is RedisSeen.ABSENT and url == GatewaySettings.read({}).redis_url


def _database(environ: Mapping[str, str], data_dir: Path) -> Plan:
    settings = DatabaseSettings.read(environ)
    if settings.url != settings.sqlite_url:
        said = f"{without_password(settings.url)} (a database URL is set)"
        return Plan((), {}, (("database", said),))
    if environ.get("PROXY_SQLITE_URL"):
        said = f"{settings.sqlite_url} (PROXY_SQLITE_URL)"
        return Plan((), {}, (("database", said),))
    url = f"sqlite:///{data_dir / 'proxy.sqlite3'}"
    said = f"SQLite, {data_dir / 'proxy.sqlite3'} (no database URL set)"
    return Plan((), {"PROXY_SQLITE_URL": url}, (("database", said),))


def _admin(environ: Mapping[str, str], data_dir: Path) -> Plan:
    settings = CommonSettings.read(environ)
    if settings.open_admin:
        said = "/admin is OPEN to everyone who can reach it "
        said += "(PROXY_ALLOW_OPEN_ADMIN=true)"
        return Plan((), {}, (("WARNING", said),))
    if settings.admin_token is not None:
        said = "requires the token in PROXY_ADMIN_TOKEN"
    else:
        said = f"requires the token in {data_dir / FILE}"
    return Plan((), {}, (("admin", said),))


def _service(name: str, environ: Mapping[str, str]) -> Program:
    longest = GATEWAY_DRAIN_SECONDS if name == "gateway" else SERVICE_DRAIN_SECONDS
    drain = min(GatewaySettings.read(environ).drain_seconds, longest)
    return Program(
        name=name,
        group="front" if name == "gateway" else "services",
        command=tuple(service_command(name, environ, drain)),
        stop_seconds=int(longest) + STOP_MARGIN_SECONDS,
        environment={"PROXY_DRAIN_SECONDS": f"{drain:g}"},
    )


def without_password(url: str) -> str:
    """The URL without credentials and query, for printing."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
