"""The function library: which files it is made of, and what they share."""

import re
from collections import Counter
from pathlib import Path

import services.router.function_library as module
from services.router.function_library import FILES, LIBRARY, SHEBANG, library_source

FOLDER = Path(module.__file__).with_name("functions")
CODE = re.sub(r"--[^\n]*", "", LIBRARY)
NAMES = Counter(re.findall(r"^local function (\w+)", CODE, re.MULTILINE)) + Counter(
    name
    for names in re.findall(r"^local ([\w, ]+) =", CODE, re.MULTILINE)
    for name in names.split(", ")
)


def test_every_file_is_loaded_once_in_order() -> None:
    assert sorted(f"{name}.lua" for name in FILES) == sorted(
        path.name for path in FOLDER.glob("*.lua")
    )
    assert LIBRARY.startswith(SHEBANG)
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
    200 local names in a chunk."""
    assert {name for name, count in NAMES.items() if count > 1} == set()
    assert len(NAMES) < 190


def test_nothing_is_unused() -> None:
    unused = [n for n in NAMES if len(re.findall(rf"\b{n}\b", CODE)) < 2]
    assert unused == []


def test_functions_are_registered_once() -> None:
    registered = re.findall(r"'(rpx_\w+_v\d+)'", CODE)
    assert len(registered) == len(set(registered)) == 21
