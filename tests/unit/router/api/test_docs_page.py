"""The documentation page for people."""

import hashlib
import re
from typing import Any

import pytest

from services.router.api.docs_page import FILES, UI, docs, kind_of, page
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
    loaded = re.findall(r"(?:src|href)='(/dashboard/[^']+)'", text)
    assert set(loaded) - {"/dashboard/style.css"} <= set(FILES)
    assert "https://" not in (UI / "docs.js").read_text()


def test_the_page_has_no_inline_script_or_style() -> None:
    text = page(DOCUMENT)
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text) == []


def test_it_is_served_with_its_policy_and_its_files() -> None:
    served = docs(DOCUMENT, "default-src 'none'; img-src 'self'")
    assert set(served) == {"/docs", *FILES}
    assert {path.name for path in UI.iterdir()} == {name for name, _ in FILES.values()}
    api = client(served)
    result = api.simulate_get("/docs")
    policy = "default-src 'none'; img-src 'self' data:"
    assert result.headers["content-security-policy"] == policy
    assert result.headers["content-type"].startswith("text/html")
    for path, (name, media) in FILES.items():
        result = api.simulate_get(path)
        assert result.content == (UI / name).read_bytes()
        assert result.headers["content-type"] == media


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (
            "swagger-ui.js",
            "3f6abf70480db7e07914df4c98a77385f22ea585eaf457a3e6415ba0eae2d167",
        ),
        (
            "swagger-ui.css",
            "c3cfe8248c4b0b89673600fb829924eafbac6de4bc4b2b06f5f5243483074d0a",
        ),
    ],
)
def test_swagger_ui_is_unchanged(name: str, digest: str) -> None:
    """To replace it, take both files of one release, and change these and NOTICE."""
    assert hashlib.sha256((UI / name).read_bytes()).hexdigest() == digest


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
