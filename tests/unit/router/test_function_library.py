"""The function library: which files it is made of, and what they share."""

import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import services.router.function_library as module
from libs.common.routing.functions import CALLED
from services.router.function_library import FILES, LIBRARY, SHEBANG, library_source

FOLDER = Path(module.__file__).with_name("functions")
CODE = re.sub(r"--[^\n]*", "", LIBRARY)


def names_in(code: str) -> Counter[str]:
    return Counter(re.findall(r"^local function (\w+)", code, re.MULTILINE)) + Counter(
        name
        for names in re.findall(r"^local ([\w, ]+) =", code, re.MULTILINE)
        for name in names.split(", ")
    )


NAMES = names_in(CODE)
# A file with a scope of its own.
SCOPED = re.sub(r"--[^\n]*", "", (FOLDER / "budgets.lua").read_text())


def test_every_file_is_loaded_once_in_order() -> None:
    assert sorted(f"{name}.lua" for name in FILES) == sorted(
        path.name for path in FOLDER.glob("*.lua")
    )
    assert LIBRARY.startswith(f"{SHEBANG}-- version {version('responses-proxy')}\n")
    places = [LIBRARY.index(f"-- {name}.lua\n") for name in FILES]
    assert places == sorted(places)
    assert library_source(FOLDER) == LIBRARY


def test_every_file_lists_its_keys() -> None:
    for name in FILES:
        head = (FOLDER / f"{name}.lua").read_text().partition("\nlocal ")[0].lower()
        assert "keys read" in head, name
        assert "keys written" in head, name


def test_files_share_one_scope_without_clashes() -> None:
    """A name defined twice would silently replace the first from there on. Lua allows
    200 local names at a time."""
    assert {name for name, count in NAMES.items() if count > 1} == set()
    shared = NAMES - names_in(SCOPED)
    assert len(shared) < 195
    before = names_in(CODE.partition(SCOPED.strip()[:40])[0])
    assert len(before) + len(names_in(SCOPED)) < 195


def test_nothing_is_unused() -> None:
    unused = [n for n in NAMES if len(re.findall(rf"\b{n}\b", CODE)) < 2]
    assert unused == []


def test_gateways_call_functions_of_the_library() -> None:
    assert frozenset(re.findall(r"'(rpx_\w+_v\d+)'", CODE)) >= CALLED


def test_functions_are_registered_once() -> None:
    registered = re.findall(r"'(rpx_\w+_v\d+)'", CODE)
    assert len(registered) == len(set(registered)) == 49


def test_an_ask_has_all_its_fields_from_the_start() -> None:
    """A field that is new, or nil, makes Lua rebuild the table in each acquire: that
    was an eighth of the call's cost."""
    made = re.search(r"^local ASK = \{(.*?)^\}", CODE, re.MULTILINE | re.DOTALL)
    assert made is not None
    assert set(re.findall(r"(\w+) =", made[1])) == set(
        re.findall(r"\bask\.(\w+)", CODE)
    )
    assert re.findall(r"^\s*ask\.[\w., ]+ = .*\bnil\b.*$", CODE, re.MULTILINE) == []
