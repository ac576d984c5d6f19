"""Checks docs/clients.md: every cell links to a test, every test of a client is in a
cell, and the versions are the tested ones."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLIENTS = "tests/acceptance/clients"
DOC = (ROOT / "docs/clients.md").read_text()
COLUMNS = 6
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOC.partition("\n\nTested versions")[0].splitlines()
    if line.startswith("| ")
][1:]
CELLS = [cell for row in ROWS for cell in row[1:]]
LINK = re.compile(r'\[pass\]\(\.\./(tests/[\w/]+/test_\w+\.py) "([\w:]+)"\)')
NAMED = {match.groups() for cell in CELLS if (match := LINK.fullmatch(cell))}


def named_in(path: Path) -> set[str]:
    """The tests of a file, by pytest's names."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {
            prefix + each.name
            for each in inner
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            and each.name.startswith("test_")
        }
    return found


def test_each_cell_is_a_test_or_does_not_apply() -> None:
    assert len(ROWS) == 18
    assert {len(row) - 1 for row in ROWS} == {COLUMNS}
    assert [c for c in CELLS if c != "n/a" and not LINK.fullmatch(c)] == []


@pytest.mark.parametrize(("file", "test"), sorted(NAMED))
def test_what_a_cell_names_exists(file: str, test: str) -> None:
    assert test in named_in(ROOT / file)


def test_each_test_of_a_client_is_a_cell() -> None:
    files = sorted((ROOT / CLIENTS).glob("test_conformance_*.py"))
    there = {(f"{CLIENTS}/{f.name}", test) for f in files for test in named_in(f)}
    assert len(files) == 4
    assert there - NAMED == set()


def test_the_versions_are_the_tested_ones() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text()
    makefile = (ROOT / "Makefile").read_text()
    pinned = [
        re.search(pattern, text, re.MULTILINE)
        for pattern, text in (
            (r"^openai==(\S+)", lock),
            (r"^openai-agents==(\S+)", lock),
            (r"openai@(\S+)", makefile),
            (r"^CODEX := (\S+)", makefile),
        )
    ]
    versions = [match[1] for match in pinned if match]
    said = re.search(
        r"openai-python (\S+), Agents SDK (\S+), openai-node (\S+), Codex (\S+)\.\n",
        DOC,
    )
    assert said is not None
    assert list(said.groups()) == versions
