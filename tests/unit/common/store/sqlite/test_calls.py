"""Statements of SQLite, chosen by name."""

from typing import Any

from libs.common.store.interface import (
    HistoryQuery,
)
from libs.common.store.sqlite.calls import history_statement


def test_the_most_selective_filter_leads() -> None:
    def led(**given: Any) -> str:
        return history_statement(HistoryQuery("requests", **given))

    assert led() == "history_requests"
    assert led(resource_id="o") == "history_requests_by_resource"
    assert led(resource_id="o", session_id="s") == "history_requests_by_session"
    assert led(session_id="s", request_id="r") == "history_requests_by_request"
