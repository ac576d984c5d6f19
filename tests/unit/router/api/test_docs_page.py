"""The documentation page for people."""

import re
from typing import Any

import pytest

from services.router.api.docs_page import Docs, kind_of, page
from services.router.api.document import document
from tests.support.values.admin import client
from tests.unit.router.api.test_document import RESOURCES

DOCUMENT = document(RESOURCES)


def test_it_shows_every_operation_and_model() -> None:
    text = page(DOCUMENT)
    for path in DOCUMENT["paths"]:
        assert f"<code>{path}</code>" in text
    for name in DOCUMENT["components"]["schemas"]:
        assert f"<h3 id='{name}'>" in text
    assert "<td>limit</td>" in text
    assert "<td><a href='#ThingAsk'>ThingAsk</a></td>" in text
    assert "<td><a href='#Thing'>Thing</a></td>" in text


def test_it_loads_nothing_from_other_hosts() -> None:
    text = page(DOCUMENT)
    assert not re.findall(r"(?:src|href)=['\"](?:https?:)?//", text)
    assert "<script" not in text


def test_it_is_served_with_its_policy() -> None:
    result = client({"/docs": Docs(DOCUMENT, "default-src 'none'")}).simulate_get(
        "/docs"
    )
    assert result.headers["content-security-policy"] == "default-src 'none'"
    assert result.headers["content-type"].startswith("text/html")


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
