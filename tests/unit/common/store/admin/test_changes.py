"""The row that a change of the admin API leaves."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from libs.common.contracts.events import Row
from libs.common.store.admin.changes import (
    CHANGES,
    MASK,
    entry,
    require_expected,
    version_of,
)
from libs.common.store.interface import Actor, ChangedMeanwhile
from libs.common.store.sql import HERE, Statements

ANN = Actor("ann", "192.0.2.1", "10.0.0.1")
MADE = "id-1", datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
OLD = {"id": "red", "name": "Red", "policy": None, "created_at": "then", "keys": 3}
KEY = {"id": "k", "name": "", "pools": ["a"], "enabled": True, "policy": None}


def changes(name: str, before: list[Row], after: list[Row]) -> Any:
    values = {"id": "red", "alias": "fast"}
    row = entry(name, values, ANN, (before, after), MADE)
    return row and json.loads(row["changes"])


def test_a_row_says_who_did_what_to_what() -> None:
    row = entry(
        "change_team", {"id": "red"}, ANN, ([OLD], [{**OLD, "name": "x"}]), MADE
    )
    assert row == {
        "id": "id-1",
        "created_at": "2026-01-02T03:04:05.678Z",
        "actor": "ann",
        "address": "192.0.2.1",
        "peer": "10.0.0.1",
        "action": "change",
        "object_type": "team",
        "object_id": "red",
        "changes": '{"name": {"before": "Red", "after": "x"}}',
    }


def test_an_alias_is_its_own_id() -> None:
    row = entry("add_model", {"alias": "fast"}, ANN, ([], [{"enabled": 1}]), MADE)
    assert row is not None
    assert row["object_id"] == "fast"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        pytest.param("change_team", [OLD], [], id="refused"),
        pytest.param("change_team", [OLD], [OLD], id="the same values"),
        pytest.param(
            "change_team", [OLD], [{**OLD, "updated_at": "now", "keys": 4}],
            id="bookkeeping",
        ),
        pytest.param("delete_team", [OLD], [], id="not deleted"),
        pytest.param("delete_team", [], [], id="never there"),
    ],
)  # fmt: skip
def test_no_change_leaves_no_row(
    name: str, before: list[Row], after: list[Row]
) -> None:
    assert changes(name, before, after) is None


def test_what_is_created_and_deleted_has_one_side() -> None:
    assert changes("add_proxy_key", [], [KEY]) == {
        "name": {"before": None, "after": ""},
        "pools": {"before": None, "after": ["a"]},
        "enabled": {"before": None, "after": True},
    }
    assert changes("delete_team", [OLD], [{"id": "red"}]) == {
        "name": {"before": "Red", "after": None}
    }


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("old", "new", (MASK, MASK)),
        (None, "new", (None, MASK)),
        ("old", None, (MASK, None)),
    ],
)
@pytest.mark.parametrize("column", ["token_hash", "api_key_sealed", "client_secret"])
def test_secrets_are_masked(
    column: str, before: str | None, after: str | None, shown: tuple[Any, Any]
) -> None:
    found = changes("change_provider", [{column: before}], [{column: after}])
    assert found == {column: {"before": shown[0], "after": shown[1]}}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_each_statement_exists(database: str) -> None:
    known = Statements(database).texts.keys()
    reads = {change.reads for change in CHANGES.values() if change.reads}
    assert CHANGES.keys() | reads <= known


def test_no_change_of_these_tables_is_forgotten() -> None:
    """Except what services change on their own: the first token, keys sealed anew, and
    the times of last use."""
    tables = ("proxy_keys", "teams", "providers", "models", "admin_token", "own_prices")
    verbs = ("INSERT INTO", "UPDATE", "DELETE FROM")
    changing = {
        file.stem
        for file in (HERE / "queries").glob("*/*.sql")
        if any(
            f"{verb} {table}{end}" in file.read_text()
            for verb in verbs
            for table in (*tables, "admin_tokens")
            for end in (" ", "\n")
        )
    }
    alone = {"add_admin_token", "reseal_provider", "touch_proxy_keys"}
    assert changing - alone == set(CHANGES)


def test_a_version_is_that_of_what_the_log_shows() -> None:
    row = {"id": "k", "name": "a", "queue_weight": 1, "last_used_at": None}
    same = {**row, "queue_weight": 1.0, "last_used_at": "now"}
    assert version_of(row) == version_of(same)
    assert version_of(row) != version_of({**row, "name": "b"})


def test_only_another_version_is_refused() -> None:
    row = {"id": "k", "name": "a"}
    require_expected([row], Actor("ann"))
    require_expected([row], Actor("ann", expects=version_of(row)))
    require_expected([], Actor("ann", expects="gone"))
    with pytest.raises(ChangedMeanwhile):
        require_expected([row], Actor("ann", expects="other"))
