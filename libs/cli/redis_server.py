"""Looks at a server that is Redis, or claims to be."""

import re

from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from libs.cli.plan import RedisSeen
from libs.common.redis.factory import blocking_client, cause_of
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.routing.replies import functions_of

SCANNED_KEYS = 1_000
FIRST_WITH_FUNCTIONS = 7
OF_EACH_STACK = "acquire_v4"  # a function


def look(url: str, patience_s: float, keys: Keys = DEFAULT) -> tuple[RedisSeen, str]:
    """What it is, and the cause when it cannot be used, else an empty string."""
    with blocking_client(url, patience_s, patience_s, keys=keys) as client:
        try:
            return _classify(client, keys)
        except (AuthenticationError, NoPermissionError) as error:
            return RedisSeen.LOCKED, cause_of(error)
        except ResponseError as error:
            locked = str(error).startswith("NOAUTH")
            seen = RedisSeen.LOCKED if locked else RedisSeen.FOREIGN
            return seen, cause_of(error)
        except (RedisError, OSError, UnicodeError) as error:  # a host name too long
            return RedisSeen.ABSENT, cause_of(error)


def _classify(client: Redis, keys: Keys) -> tuple[RedisSeen, str]:
    server = client.info()
    # Valkey reports the version of Redis that it is compatible with, at least 7.2.
    version = str(server.get("redis_version", ""))
    major = re.match(r"[0-9]{1,6}", version)
    if major is None or int(major[0]) < FIRST_WITH_FUNCTIONS:
        return RedisSeen.TOO_OLD, f"it has version {version[:40] or 'unknown'}"
    return _held_by(client, keys, server.get("role")), ""


def _held_by(client: Redis, keys: Keys, role: object) -> RedisSeen:
    if role != "master":
        return RedisSeen.READ_ONLY
    if client.dbsize() == 0:
        return RedisSeen.EMPTY
    if client.exists(keys.catalogue()):
        return RedisSeen.OURS
    # One SCAN call only: a large foreign database is not walked through.
    _, found = client.scan(match=f"{keys.tag}:*", count=SCANNED_KEYS)
    if found:
        return RedisSeen.OURS
    return RedisSeen.SHARED if _has_others(client, keys) else RedisSeen.FOREIGN


def _has_others(client: Redis, keys: Keys) -> bool:
    """Whether the router of another stack loaded its functions."""
    try:
        libraries = client.execute_command("FUNCTION", "LIST")  # type: ignore[no-untyped-call]
    except NoPermissionError:
        return False
    loaded = (name for library in libraries for name in functions_of([library]))
    others = (name for name in loaded if name != keys.function(OF_EACH_STACK))
    return any(name.endswith(f"_{OF_EACH_STACK}") for name in others)
