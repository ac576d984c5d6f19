"""The function library: which files it is made of, and what they share."""

import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import services.router.function_library as module
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.routing.functions import CALLED
from services.router.function_library import (
    FILES,
    LIBRARY,
    SOURCE,
    library,
    source_of,
)

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
    places = [SOURCE.index(f"-- {name}.lua\n") for name in FILES]
    assert places == sorted(places)
    assert source_of(FOLDER) == SOURCE


def test_the_library_of_a_stack_has_its_namespace_and_the_version() -> None:
    of_version = f"-- version {version('responses-proxy')}\n"
    assert library(DEFAULT) == LIBRARY
    assert LIBRARY.startswith(f"#!lua name=rpx\n{of_version}")
    other = library(Keys("b_2"))
    assert other.startswith(f"#!lua name=b_2\n{of_version}")
    assert other.replace("b_2", "rpx") == LIBRARY


def test_the_namespace_is_said_once() -> None:
    """Then no function can reach the keys of another stack."""
    assert CODE.count("rpx") == 2  # in the name of the library, and NAMESPACE


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


REGISTERED = re.findall(r"\bregister(?:_reader)?\('(\w+)'", CODE)


def test_gateways_call_functions_of_the_library() -> None:
    assert frozenset(REGISTERED) >= CALLED


def test_functions_are_registered_once() -> None:
    assert len(REGISTERED) == len(set(REGISTERED)) == 55


def test_functions_of_two_stacks_never_have_one_name() -> None:
    """Redis refuses a library with a function of another one. With no underscore before
    its version, `a` + `b_acquire_v4` is no function, whatever the namespaces are."""
    assert all(re.fullmatch(r"[a-z]+_v[0-9]+", name) for name in REGISTERED)


def test_an_ask_has_all_its_fields_from_the_start() -> None:
    """A field that is new, or nil, makes Lua rebuild the table in each acquire: that
    was an eighth of the call's cost."""
    made = re.search(r"^local ASK = \{(.*?)^\}", CODE, re.MULTILINE | re.DOTALL)
    assert made is not None
    assert set(re.findall(r"(\w+) =", made[1])) == set(
        re.findall(r"\bask\.(\w+)", CODE)
    )
    assert re.findall(r"^\s*ask\.[\w., ]+ = .*\bnil\b.*$", CODE, re.MULTILINE) == []
