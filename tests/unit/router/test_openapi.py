"""The OpenAPI description matches the code."""

import re
from typing import Any

import pytest

from libs.common.contracts.events import DecisionEvent, RequestEvent
from services.router.openapi import OPERATIONS, document, kind_of, page

SCHEMAS = document()["components"]["schemas"]


def refs(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"].rpartition("/")[2]} if "$ref" in part else set()
        return own.union(*map(refs, part.values()))
    if isinstance(part, list):
        return set().union(*map(refs, part))
    return set()


def test_every_reference_leads_somewhere() -> None:
    assert refs(document()) <= set(SCHEMAS)


@pytest.mark.parametrize(
    ("row", "event", "more"),
    [("RequestRow", RequestEvent, set()), ("DecisionRow", DecisionEvent, {"id"})],
)
def test_rows_have_the_events_fields_by_their_column_names(
    row: str, event: Any, more: set[str]
) -> None:
    fields = set(event.model_fields) - {"minted"}  # in a table of its own
    columns = {re.sub("_at_ms$", "_at", name) for name in fields}
    assert set(SCHEMAS[row]["properties"]) == columns | more


def test_state_is_described() -> None:
    described = set(SCHEMAS["AdminState"]["properties"])
    assert {"resources", "decisions", "ledger", "degraded", "timestamp"} <= described


def test_admin_calls_say_that_they_need_the_token() -> None:
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == path.startswith("/admin")
            assert ("401" in operation["responses"]) == path.startswith("/admin")


def test_the_page_shows_every_call_and_loads_nothing_from_elsewhere() -> None:
    text = page()
    for operation in OPERATIONS:
        assert operation.path in text
    assert not re.findall(r"(?:src|href)=['\"](?:https?:)?//", text)
    assert "<script" not in text


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "string"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer or null"),
        ({"type": "array", "items": {"$ref": "#/x/Row"}}, "list of Row"),
        ({"enum": ["a", "b"]}, "a or b"),
        ({}, "any"),
    ],
)
def test_types_in_words(schema: dict[str, Any], words: str) -> None:
    assert kind_of(schema) == words
