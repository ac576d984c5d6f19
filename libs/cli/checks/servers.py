"""Checks of Redis and the database.

`up` does not start with a server that answers and can never be used: too old, or with
a wrong password. It does start while a server does not answer: that may change."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg

from libs.cli.checks.cluster import cluster
from libs.cli.checks.finding import Context, Finding
from libs.cli.observe import look_at_redis
from libs.cli.plan import RedisSeen, stands_in, without_password
from libs.common.errors import SettingError
from libs.common.settings.base import CLUSTER_SCHEMES, DatabaseSettings
from libs.common.store.migrate import known_migrations
from libs.common.store.postgres.errors import cause_of

FINAL = {RedisSeen.TOO_OLD, RedisSeen.LOCKED}  # waiting does not help
DATABASE_VARIABLES = ("PROXY_DATABASE_URL", "SERVICE_DATABASE_URL", "DATABASE_URL")


def redis(context: Context) -> Iterator[Finding]:
    url = context.settings.redis_url
    place = without_password(url)
    subject = f"redis {place}"
    seen, cause = look_at_redis(url, context.patience_s)
    state = f"{seen.value} ({cause})" if cause else seen.value
    if url.startswith(CLUSTER_SCHEMES) and seen not in FINAL:
        yield from cluster(url, context.patience_s)
    elif seen.usable:
        yield Finding(subject, f"answers and has functions; {seen.value}")
    elif not context.environ.get("PROXY_REDIS_URL") or stands_in(url, seen):
        yield Finding(subject, f"{state}; `up` starts an embedded server instead")
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
        yield _postgres(url, _variable(context), context.patience_s)


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
            version = _version(connection.execute, "sqlite_master", "name")
    except (sqlite3.Error, OSError) as error:
        fix = "Check the file and its directory in PROXY_SQLITE_URL"
        return Finding.failed(subject, f"cannot be used ({error})", fix)
    newer = _too_new(url, "PROXY_SQLITE_URL", version, "sqlite")
    return newer or Finding(subject, "can be opened")


def _postgres(url: str, variable: str, patience_s: float) -> Finding:
    place = without_password(url)
    try:
        with psycopg.connect(url, connect_timeout=int(patience_s)) as connection:
            tables = "information_schema.tables"
            version = _version(connection.execute, tables, "table_name")
            server = connection.info.server_version // 10_000
    except psycopg.Error as error:
        return _unusable(place, variable, error)
    newer = _too_new(url, variable, version, "postgres")
    return newer or Finding(f"database {place}", f"answers, Postgres {server}")


def _version(execute: object, tables: str, column: str) -> int:
    """The version of the schema; 0 if there is none yet."""
    assert callable(execute)
    named = f"SELECT 1 FROM {tables} WHERE {column} = 'schema_migrations'"  # noqa: S608
    if execute(named).fetchone() is None:
        return 0
    newest = execute("SELECT max(version) FROM schema_migrations").fetchone()
    return int(newest[0] or 0)


def _too_new(url: str, variable: str, version: int, kind: str) -> Finding | None:
    known = len(known_migrations(kind))
    if version <= known:
        return None
    error = SettingError(
        variable,
        f"names database {without_password(url)}, whose schema has version {version}, "
        f"but this version of the proxy supports {known}",
        "Run the version that migrated it, or a newer one",
    )
    return Finding.refused(error)


# What Postgres and pgbouncer say when waiting does not help.
_FINAL = (
    *("password authentication failed", "no password supplied", "does not exist"),
    *("authentication failed", "no pg_hba.conf entry", "no such user"),
    "no such database",
)


def _unusable(place: str, variable: str, error: psycopg.Error) -> Finding:
    cause = cause_of(error).rstrip(".")
    if isinstance(error, psycopg.ProgrammingError):
        cause = "it has an option that libpq does not know, or a malformed part"
    elif not any(sign in cause for sign in _FINAL):
        fix = f"Check the host, port and database name in {variable}"
        if any(sign in cause for sign in ("SSL", "ssl", "certificate")):
            fix = (
                "Check the host, sslmode and sslrootcert (a file with the CA's "
                f"certificate) in {variable}"
            )
        return Finding.failed(f"database {place}", f"cannot be used ({cause})", fix)
    return Finding.refused(
        SettingError(
            variable,
            f"names database {place}, which cannot be used ({cause})",
            f"Check the host, user, password and database name in {variable}",
        )
    )
