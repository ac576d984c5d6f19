"""Postgres: which problems `up` waits for, and which it refuses."""

import psycopg
import pytest

from libs.cli.checks import servers
from libs.cli.checks.finding import Context, Finding, Level


def of_database(**environ: str) -> Finding:
    (finding,) = servers.database(Context(environ, 1.0))
    return finding


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ('FATAL:  password authentication failed for user "u"', Level.REFUSED),
        ('FATAL:  database "d" does not exist', Level.REFUSED),
        ("fe_sendauth: no password supplied", Level.REFUSED),
        ("connection refused. Is the server running?", Level.FAILED),
        ("FATAL:  the database system is starting up", Level.FAILED),
        ("SSL error: certificate verify failed", Level.FAILED),
    ],
)
def test_what_waiting_does_not_help(
    monkeypatch: pytest.MonkeyPatch, said: str, level: Level
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError(said)

    monkeypatch.setattr(psycopg, "connect", refuse)
    finding = of_database(SERVICE_DATABASE_URL="postgresql://u:hush@h/d")
    assert finding.level is level
    assert "SERVICE_DATABASE_URL" in str(finding)
    assert "hush" not in str(finding)


def test_an_option_that_libpq_does_not_know() -> None:
    finding = of_database(PROXY_DATABASE_URL="postgresql://u:hush@h/d?hush=1")
    assert (finding.subject, finding.level) == ("PROXY_DATABASE_URL", Level.REFUSED)
    assert "hush" not in str(finding)
