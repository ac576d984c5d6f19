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
from libs.common.redis import keys
from libs.common.redis.factory import blocking_client, cause_of

SCANNED_KEYS = 1_000
FIRST_WITH_FUNCTIONS = 7


def look(url: str, patience_s: float) -> tuple[RedisSeen, str]:
    """What it is, and the cause when it cannot be used, else an empty string."""
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
