"""Checks of Redis and the database.

`up` does not start with a server that answers and can never be used: too old, or with
a wrong password. It does start while a server does not answer: that may change."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from libs.cli.checks.finding import Context, Finding
from libs.cli.checks.schema import schema_version, too_new
from libs.cli.observe import look_at_redis
from libs.cli.plan import RedisSeen, stands_in, without_password
from libs.common.errors import SettingError
from libs.common.settings.base import CLUSTER_SCHEMES, DatabaseSettings

FINAL = {RedisSeen.TOO_OLD, RedisSeen.LOCKED}  # waiting does not help
DATABASE_VARIABLES = ("PROXY_DATABASE_URL", "SERVICE_DATABASE_URL", "DATABASE_URL")


def redis(context: Context) -> Iterator[Finding]:
    url, keys = context.settings.redis_url, context.settings.redis_keys
    place = without_password(url)
    subject = f"redis {place}"
    seen, cause = look_at_redis(url, context.patience_s, keys)
    state = f"{seen.value} ({cause})" if cause else seen.value
    if url.startswith(CLUSTER_SCHEMES) and seen not in FINAL:
        from libs.cli.checks.cluster import cluster  # noqa: PLC0415 - see `database`

        yield from cluster(url, context.patience_s, keys)
    elif seen.usable:
        yield Finding(subject, f"answers and has functions; {seen.value}")
    elif not context.environ.get("PROXY_REDIS_URL") or stands_in(url, seen):
        yield Finding(subject, f"{state}; `up` starts an embedded server instead")
    elif seen is RedisSeen.SHARED:
        state = f"{state}; the keys of this one begin with {keys.tag}"
        yield Finding(subject, f"answers and has functions; {state}")
    elif seen is RedisSeen.FOREIGN:
        yield Finding.failed(
            subject,
            state,
            "If it is not meant to be shared, select another database in "
            "PROXY_REDIS_URL",
        )
    elif seen in FINAL:
        error = SettingError(
            "PROXY_REDIS_URL", f"names redis {place}, but {state}", _redis_fix(seen)
        )
        yield Finding.refused(error)
    else:
        yield Finding.failed(subject, state, _redis_fix(seen, cause))


def redis_version(context: Context) -> Iterator[Finding]:
    """Only whether Redis is too old. A service that starts waits for all else."""
    if context.environ.get("PROXY_REDIS_URL"):
        old = RedisSeen.TOO_OLD.value
        yield from (f for f in redis(context) if old in f.state)


def _redis_fix(seen: RedisSeen, cause: str = "") -> str:
    if cause.startswith("TLS"):
        return (
            "Set the CA of the server's certificate in PROXY_REDIS_URL "
            "(?ssl_ca_certs=FILE), and use a host name that the certificate contains"
        )
    if seen is RedisSeen.LOCKED:
        return "Correct USER:PASSWORD in PROXY_REDIS_URL, or the user's ACL"
    return "Start Redis 7 or later, or correct PROXY_REDIS_URL"


def database(context: Context) -> Iterator[Finding]:
    url = DatabaseSettings.read(context.environ).url
    if url.startswith("sqlite:"):
        yield _sqlite(url)
    else:
        # Clients of servers are imported where one is: their imports take long.
        from libs.cli.checks.postgres import postgres  # noqa: PLC0415

        namespace = context.settings.redis_namespace
        yield from postgres(url, _variable(context), context.patience_s, namespace)


def _variable(context: Context) -> str:
    """The variable that gives the database URL."""
    given = (name for name in DATABASE_VARIABLES if context.environ.get(name))
    return next(given, "PROXY_SQLITE_URL")


def _sqlite(url: str) -> Finding:
    subject = f"database {url}"
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        return Finding(subject, "will be created")
    try:
        file = f"file:{quote(str(path))}?mode=rw"
        with closing(sqlite3.connect(file, uri=True)) as connection:
            version = schema_version(connection.execute, "sqlite_master", "name")
    except (sqlite3.Error, OSError) as error:
        fix = "Check the file and its directory in PROXY_SQLITE_URL"
        return Finding.failed(subject, f"cannot be used ({error})", fix)
    newer = too_new(url, "PROXY_SQLITE_URL", version, "sqlite")
    return newer or Finding(subject, "can be opened")
