"""Which form runs, and that compiled modules are those of the sources."""

import ast
import json
import tomllib
from pathlib import Path

import pytest

from libs.common.runtime.compiled import (
    LIBRARY,
    RECORD,
    digest,
    form,
    refuse_stale,
)

ROOT = Path(__file__).parents[4]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPILED = [
    ROOT / f"{name.replace('.', '/')}.py"
    for name in PROJECT["tool"]["compiled"]["modules"]
]
SOURCES = ("libs/a.py", "services/b.py")


@pytest.fixture
def libs(tmp_path: Path) -> Path:
    """A checkout of two modules, compiled."""
    for name in SOURCES:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"# {name}\n")
    known = {name: digest(tmp_path / name) for name in SOURCES}
    (tmp_path / "libs" / RECORD).write_text(json.dumps(known))
    (tmp_path / "libs" / LIBRARY).touch()
    return tmp_path / "libs"


def test_without_the_shared_object_all_is_interpreted(tmp_path: Path) -> None:
    assert form(tmp_path) == "interpreted"
    refuse_stale(tmp_path)


def test_what_was_compiled_runs(libs: Path) -> None:
    assert form(libs) == "compiled"
    refuse_stale(libs)


def test_what_another_python_compiled_does_not_count(libs: Path) -> None:
    (libs / LIBRARY).rename(libs / "compiled__mypyc.cpython-310-x86_64-linux-gnu.so")
    (libs / "a.py").write_text("changed")
    assert form(libs) == "interpreted"
    refuse_stale(libs)


def test_a_shared_object_without_a_record_is_refused(libs: Path) -> None:
    """As in versions until November 2026, which had one record for all Pythons."""
    (libs / RECORD).rename(libs / "compiled.json")
    with pytest.raises(SystemExit, match=r"libs/compiled\..*\.json changed"):
        refuse_stale(libs)


def test_a_source_that_changed_since_is_refused(libs: Path) -> None:
    (libs / "a.py").write_text("changed")
    with pytest.raises(SystemExit, match=r"libs/a\.py changed .* `make uncompile`"):
        refuse_stale(libs)


def test_sources_that_are_gone_are_refused(libs: Path) -> None:
    for name in SOURCES:
        (libs.parent / name).unlink()
    with pytest.raises(SystemExit, match=r"libs/a\.py and 1 more changed"):
        refuse_stale(libs)


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_no_compiled_coroutine_waits_in_a_handler(path: Path) -> None:
    """mypyc would mix up the exceptions of coroutines (docs/adr/0011-mypyc.md)."""
    handlers = [
        statement
        for tried in ast.walk(ast.parse(path.read_text()))
        if isinstance(tried, ast.Try)
        for body in (tried.finalbody, *(h.body for h in tried.handlers))
        for statement in body
    ]
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [w.lineno for s in handlers for w in ast.walk(s) if isinstance(w, waits)]
    assert found == []
