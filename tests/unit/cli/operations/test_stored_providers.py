"""Stored providers that violate the rules, as doctor finds them."""

import sqlite3
from contextlib import closing
from pathlib import Path

from libs.cli.operations.stored_providers import broken_providers

ROWS = [
    ("good", "https://acme.example/v1", "env:PROVIDER_ACME", 1),
    ("sealed", "https://acme.example/v1", None, 1),
    ("theirs", "https://evil.example/v1", "env:OPENAI_API_KEYS", 1),
    ("metadata", "http://169.254.169.254/v1", None, 1),
    ("disabled", "http://169.254.169.254/v1", None, 0),
]


def test_rows_that_break_the_rules_are_named(tmp_path: Path) -> None:
    file = tmp_path / "proxy.sqlite3"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "CREATE TABLE providers (id, base_url, credential_ref, enabled)"
        )
        database.executemany("INSERT INTO providers VALUES (?, ?, ?, ?)", ROWS)
    environ = {"PROXY_SQLITE_URL": f"sqlite:///{file}"}
    found = dict(broken_providers(environ, 1))
    assert set(found) == {"metadata", "theirs"}
    assert "metadata service" in found["metadata"]
    assert "PROXY_UPSTREAM_BASE_URL" in found["theirs"]


def test_a_database_that_is_not_there_yet_has_none(tmp_path: Path) -> None:
    environ = {"PROXY_SQLITE_URL": f"sqlite:///{tmp_path / 'none.sqlite3'}"}
    assert list(broken_providers(environ, 1)) == []
