"""Rows of the history have the columns of SQL."""

import re
from typing import Any

import pytest

from libs.common.contracts.events import DecisionEvent, RequestEvent
from services.router.admin.schemas.history import (
    DecisionRow,
    HistoryFilter,
    RequestRow,
    RequestsFilter,
    RequestsPage,
    RequestView,
    RequestWithDecisions,
)
from tests.support.values.admin import request_row


@pytest.mark.parametrize(
    ("row", "event", "more"),
    [(RequestRow, RequestEvent, set()), (DecisionRow, DecisionEvent, {"id"})],
)
def test_rows_have_the_events_fields_by_their_column_names(
    row: Any, event: Any, more: set[str]
) -> None:
    fields = set(event.__struct_fields__) - {"minted"}  # in a table of its own
    columns = {re.sub("_at_ms$", "_at", name) for name in fields}
    assert set(row.model_fields) == columns | more


def test_rows_have_times_as_text_and_durations_as_numbers() -> None:
    fields = RequestRow.model_fields
    assert fields["created_at"].annotation is str
    assert "latency_ms" in fields


def test_a_request_is_described_with_its_decisions() -> None:
    own = {"decisions", "bodies", "cost_usd", "timeline"}
    assert set(RequestWithDecisions.model_fields) - set(RequestRow.model_fields) == own


def test_a_page_takes_rows_as_sql_has_them() -> None:
    page = RequestsPage.model_validate({"data": [request_row()], "next_cursor": None})
    assert page.model_dump()["data"][0]["id"] == "req-1"


def test_a_filter_selects_all_rows_by_default() -> None:
    assert HistoryFilter().model_dump(exclude={"limit"}, exclude_none=True) == {}


def test_times_are_named_as_in_a_query() -> None:
    given = {"from": "2026-01-02T03:04:05Z", "to": "x", "status": "4xx"}
    found = RequestsFilter.model_validate(given)
    assert (found.since, found.until) == ("2026-01-02T03:04:05Z", "x")
    with pytest.raises(ValueError, match="status"):
        RequestsFilter.model_validate({"status": "9xx"})
    with pytest.raises(ValueError, match="outcome"):
        RequestsFilter.model_validate({"outcome": "lost"})


@pytest.mark.parametrize(("given", "bodies"), [("true", True), ("false", False)])
def test_bodies_are_true_or_false(given: str, bodies: bool) -> None:
    assert RequestView.model_validate({"bodies": given}).bodies is bodies
    with pytest.raises(ValueError, match="give true or false"):
        RequestView.model_validate({"bodies": given.upper()})
