"""Statements of SQLite, chosen by name."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from libs.common.store.interface import Actor, HistoryQuery
from libs.common.store.sqlite.calls import fetch_recorded, history_statement
from libs.common.store.sqlite.connection import connect
from libs.common.store.sqlite.schema import migrate


def test_the_most_selective_filter_leads() -> None:
    def led(**given: Any) -> str:
        return history_statement(HistoryQuery("requests", **given))

    assert led() == "history_requests"
    assert led(resource_id="o") == "history_requests_by_resource"
    assert led(resource_id="o", session_id="s") == "history_requests_by_session"
    assert led(session_id="s", request_id="r") == "history_requests_by_request"


def test_a_change_and_its_record_are_one(tmp_path: Path) -> None:
    ann = Actor("ann")
    team: dict[str, object] = {"id": "red", "name": "", "policy": None}
    team |= {"key_defaults": None, "budget": "{}"}
    team["created_at"] = "now"
    with closing(connect(tmp_path / "x.sqlite3")) as connection:
        migrate(connection)
        (row,) = fetch_recorded(connection, "add_team", team, ann)
        assert (row["budget"], row["policy"]) == ({}, None)
        assert not fetch_recorded(connection, "add_team", team, ann)
        recorded = connection.execute("SELECT actor, object_id FROM audit_log")
        assert [tuple(row) for row in recorded] == [("ann", "red")]
        connection.execute("DROP TABLE audit_log")
        with pytest.raises(sqlite3.OperationalError):
            fetch_recorded(connection, "delete_team", {"id": "red"}, ann)
        assert connection.execute("SELECT count(*) FROM teams").fetchone()[0] == 1
