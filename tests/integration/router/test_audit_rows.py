"""The audit log in the databases: rows, their versions, and pages of them."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from libs.common.errors import StoreAway
from libs.common.store.admin.audit_log import AuditLog, AuditQuery
from libs.common.store.admin.changes import CHANGES
from libs.common.store.factory import open_store
from libs.common.store.interface import Actor, ChangedMeanwhile
from libs.common.store.proxy_keys import TeamRows
from libs.common.store.store import Store
from tests.support.databases.sql import execute, table_rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN = Actor("ann", "192.0.2.1", "10.0.0.1")
NOW = datetime.now(UTC)


@pytest.mark.asyncio(loop_scope="function")
async def test_without_its_row_nothing_changes(url: str, store: Store) -> None:
    rows = TeamRows(store.fetch).by(ANN)
    await rows.add({"id": "red", "name": "", "policy": None}, NOW)
    execute(url, "ALTER TABLE audit_log RENAME TO elsewhere")
    with pytest.raises(StoreAway):
        await rows.add({"id": "blue", "name": "", "policy": None}, NOW)
    with pytest.raises(StoreAway):
        await rows.change("red", {"name": "Red"})
    with pytest.raises(StoreAway):
        await rows.delete("red")
    assert [(row[0], row[1]) for row in table_rows(url, "teams")] == [("red", "")]


@pytest.mark.asyncio(loop_scope="function")
async def test_before_is_what_the_last_change_left(url: str, store: Store) -> None:
    await TeamRows(store.fetch).add({"id": "red", "name": "0", "policy": None}, NOW)
    async with open_store(url) as other:
        writers = [TeamRows(each.fetch).by(ANN) for each in (store, other)]
        await asyncio.gather(
            *(
                writers[number % 2].change("red", {"name": str(number)})
                for number in range(1, 21)
            )
        )
    page = await AuditLog(store.fetch).page(AuditQuery(limit=100))
    changes = [row["changes"]["name"] for row in reversed(page.rows)]
    assert len(changes) == 20
    follows = {change["before"]: change["after"] for change in changes}
    seen = ["0"]
    while seen[-1] in follows:
        seen.append(follows.pop(seen[-1]))
    assert (len(seen), follows) == (21, {})


@pytest.mark.asyncio(loop_scope="function")
async def test_of_two_changes_of_one_version_the_second_is_refused(
    url: str, store: Store
) -> None:
    """At the same time, through two routers."""
    teams = TeamRows(store.fetch)
    made = await teams.add({"id": "red", "name": "0", "policy": None}, NOW)
    assert made is not None
    async with open_store(url) as other:
        by = replace(ANN, expects=made["version"])
        done = await asyncio.gather(
            *(
                TeamRows(each.fetch).by(by).change("red", {"name": name})
                for each, name in ((store, "1"), (other, "2"))
            ),
            return_exceptions=True,
        )
    refused = [each for each in done if isinstance(each, ChangedMeanwhile)]
    assert len(refused) == 1
    changed = await teams.get("red")
    assert changed is not None
    assert (changed["name"] in "12", changed["version"] != made["version"]) == (
        True, True,
    )  # fmt: skip
    page = await AuditLog(store.fetch).page(AuditQuery(limit=9))
    assert [row["action"] for row in page.rows] == ["change"]
    with pytest.raises(ChangedMeanwhile):
        await teams.by(replace(ANN, expects=made["version"])).delete("red")
    assert await teams.by(replace(ANN, expects=changed["version"])).delete("red")


@pytest.mark.asyncio(loop_scope="function")
async def test_pages_and_filters(store: Store) -> None:
    log = AuditLog(store.fetch)
    for number in range(5):
        rows = TeamRows(store.fetch).by(Actor(f"a{number % 2}"))
        await rows.add({"id": f"t{number}", "name": "", "policy": None}, NOW)
        await rows.change(f"t{number}", {"name": "x"})
    first = await log.page(AuditQuery(limit=7))
    rest = await log.page(AuditQuery(limit=7, cursor=first.next_cursor))
    assert (len(first.rows), len(rest.rows), rest.next_cursor) == (7, 3, None)
    assert first.rows[0]["object_id"] == "t4"
    assert len((await log.page(AuditQuery(actor="a1"))).rows) == 4
    found = await log.page(AuditQuery(object_type="team", object_id="t2"))
    assert [row["action"] for row in found.rows] == ["change", "create"]
    assert not (await log.page(AuditQuery(object_type="model"))).rows


@pytest.mark.asyncio(loop_scope="function")
async def test_each_recorded_statement_exists_and_reads(store: Store) -> None:
    for change in CHANGES.values():
        if change.reads is not None:
            values = {"id": "nobody", change.key: "nobody"}
            assert await store.fetch(change.reads, change.reading(values)) == []
