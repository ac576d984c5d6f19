"""Schemas of other versions."""

import sqlite3
from contextlib import closing

import pytest

from libs.cli.checks.finding import Level
from libs.cli.checks.schema import schema_version, too_new
from libs.common.store.migrate import known_migrations


@pytest.mark.parametrize("versions", [[], [1], [1, 3, 2]])
def test_the_version_is_that_of_the_last_migration(versions: list[int]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        execute = connection.execute
        assert schema_version(execute, "sqlite_master", "name") == 0
        execute("CREATE TABLE schema_migrations (version)")
        for version in versions:
            execute("INSERT INTO schema_migrations VALUES (?)", [version])
        assert schema_version(execute, "sqlite_master", "name") == max(versions or [0])


def test_a_newer_schema_is_refused_without_the_password() -> None:
    known = len(known_migrations("postgres"))
    url = "postgresql://u:hush@h/d"
    assert too_new(url, "DATABASE_URL", known, "postgres") is None
    finding = too_new(url, "DATABASE_URL", known + 1, "postgres")
    assert finding is not None
    assert (finding.subject, finding.level) == ("DATABASE_URL", Level.REFUSED)
    assert "hush" not in str(finding)
