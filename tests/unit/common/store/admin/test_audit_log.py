"""Queries of the audit log. tests/integration/router/test_audit.py has databases."""

from collections.abc import Mapping
from typing import Any

import pytest

from libs.common.contracts.events import Row
from libs.common.store.admin.audit_log import AuditedRows, AuditLog, AuditQuery
from libs.common.store.interface import AFTER_EVERY_TIME, Actor, BadQuery, Cursor

AT = "2026-01-02T03:04:05.678Z"


class Calls:
    def __init__(self, *rows: Row) -> None:
        self.rows = list(rows)
        self.values: Mapping[str, Any] = {}
        self.by: Actor | None = None

    async def fetch(
        self, name: str, values: Mapping[str, Any], by: Actor | None = None
    ) -> list[Row]:
        self.values, self.by = values, by
        return self.rows


class Things(AuditedRows):
    async def change(self) -> None:
        await self._fetch("change_thing", {})


@pytest.mark.asyncio
async def test_who_changes_rows_is_passed_on() -> None:
    calls, ann = Calls(), Actor("ann")
    rows = Things(calls.fetch)
    await rows.by(ann).change()
    assert calls.by is ann
    await rows.change()
    assert calls.by is None


@pytest.mark.asyncio
async def test_a_page() -> None:
    rows = [{"id": id_, "created_at": AT, "changes": {}} for id_ in "cba"]
    calls = Calls(*rows)
    page = await AuditLog(calls.fetch).page(AuditQuery(limit=2, actor="ann"))
    assert [row["id"] for row in page.rows] == ["c", "b"]
    assert page.next_cursor == Cursor(AT, "b").encode()
    assert (calls.values["actor"], calls.values["rows"]) == ("ann", 3)
    assert calls.values["before_at"] == AFTER_EVERY_TIME
    await AuditLog(calls.fetch).page(AuditQuery(cursor=page.next_cursor))
    assert (calls.values["before_at"], calls.values["before_id"]) == (AT, "b")


def test_a_value_that_no_row_can_have() -> None:
    with pytest.raises(BadQuery, match="actor"):
        AuditQuery(actor="a\0")
    with pytest.raises(BadQuery, match="object_type"):
        AuditQuery(object_type="\ud800")
    with pytest.raises(BadQuery, match="object_id"):
        AuditQuery(object_id="\0")


@pytest.mark.asyncio
async def test_a_cursor_that_is_none() -> None:
    with pytest.raises(BadQuery, match="cursor"):
        await AuditLog(Calls().fetch).page(AuditQuery(cursor="x"))
