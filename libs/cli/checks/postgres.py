"""The check of a Postgres."""

from collections.abc import Iterator

import psycopg

from libs.cli.checks.finding import Finding
from libs.cli.checks.schema import schema_version, too_new
from libs.cli.checks.shards import READ, SINCE, shards
from libs.cli.plan import without_password
from libs.common.errors import SettingError
from libs.common.store.postgres.errors import cause_of

# What Postgres and pgbouncer say when waiting does not help.
_FINAL = (
    *("password authentication failed", "no password supplied", "does not exist"),
    *("authentication failed", "no pg_hba.conf entry", "no such user"),
    "no such database",
)


def postgres(
    url: str, variable: str, patience_s: float, namespace: str
) -> Iterator[Finding]:
    """The findings about the database, and about the shards that use it."""
    place = without_password(url)
    try:
        with psycopg.connect(url, connect_timeout=int(patience_s)) as connection:
            tables = "information_schema.tables"
            version = schema_version(connection.execute, tables, "table_name")
            server = connection.info.server_version // 10_000
            others: list[tuple[str, int]] = []
            if version >= SINCE:
                others = connection.execute(READ).fetchall()
    except psycopg.Error as error:
        yield _unusable(place, variable, error)
        return
    newer = too_new(url, variable, version, "postgres")
    yield newer or Finding(f"database {place}", f"answers, Postgres {server}")
    yield from shards(place, others, namespace)


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
