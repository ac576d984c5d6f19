"""Which proxy keys are valid, and how rows are shown."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from services.router.admin.shapes import (
    DecisionRow,
    ExplainAsk,
    KeyChange,
    Ledger,
    MintAsk,
    MintedKey,
    ProxyKeyRow,
    RequestRow,
    RequestsPage,
    RequestWithDecisions,
    WholeLedger,
)
from tests.support.values.telemetry import request_event


def test_a_key_may_be_asked_for_without_any_word() -> None:
    empty = MintAsk()
    assert (empty.name, empty.pool_id, empty.pools) == ("", None, ())
    assert (empty.expires_at, empty.requests_per_minute) == (None, None)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "x" * 201},
        {"name": "a\x7f"},
        {"pool_id": ""},
        {"pools": ["a"] * 101},
        {"pools": ["a\n"]},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 10**12 + 1},
        {"expires_at": "2027-01-01T00:00:00"},
        {"expires_at": "1999-12-31T23:59:59Z"},
        {"expires_at": "9000-01-01T00:00:00Z"},
        {"enabled": True},
    ],
)
def test_a_key_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MintAsk.model_validate_json(json.dumps(given))


def test_a_key_is_disabled_by_a_change_alone() -> None:
    change = KeyChange.model_validate({"enabled": False})
    assert change.model_dump(exclude_unset=True) == {"enabled": False}


def test_a_secret_is_in_one_answer_alone() -> None:
    fields = {n for n in MintedKey.model_fields if n not in ProxyKeyRow.model_fields}
    assert fields == {"secret"}
    assert "secret_hash" not in MintedKey.model_fields


def test_rows_have_times_as_text_and_durations_as_numbers() -> None:
    fields = RequestRow.model_fields
    assert "created_at_ms" not in fields
    assert "minted" not in fields
    assert fields["created_at"].annotation is str
    assert "latency_ms" in fields
    assert "id" in DecisionRow.model_fields


def test_a_request_is_described_with_its_decisions() -> None:
    own = {"decisions", "bodies"}
    assert set(RequestWithDecisions.model_fields) - set(RequestRow.model_fields) == own


def test_a_page_takes_rows_as_sql_has_them() -> None:
    row = request_event().model_dump(mode="json")
    for name in ("created_at", "completed_at"):
        row[name] = str(row.pop(f"{name}_ms"))
    del row["minted"]
    page = RequestsPage.model_validate({"data": [row], "next_cursor": None})
    assert page.model_dump()["data"][0]["id"] == "req-1"


def test_what_is_explained_is_a_request_to_the_gateway() -> None:
    assert ExplainAsk().path == "/v1/responses"
    with pytest.raises(ValidationError):
        ExplainAsk.model_validate({"method": "BREW"})


def test_the_whole_ledger_is_the_ledger_and_its_gateways() -> None:
    more = set(WholeLedger.model_fields) - set(Ledger.model_fields)
    assert more == {"queue_depth", "gateways", "timestamp"}
