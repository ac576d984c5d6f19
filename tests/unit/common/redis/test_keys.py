"""Names of Redis keys and functions."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator

import pytest

from libs.common.redis.keys import DEFAULT, NAMESPACE, Keys, dead_letters, payloads
from tests.support.processes.processes import ROOT

OTHER = Keys("b_2")
PROCESSES = "services", "libs/cli"
NAMED = sorted(
    name
    for name, _ in inspect.getmembers(Keys, inspect.isfunction)
    if not name.startswith("_") and name not in {"has_tag", "function"}
)


def named(keys: Keys, name: str, argument: str = "x") -> str:
    method: Callable[..., str] = getattr(keys, name)
    return method(*(argument for _ in inspect.signature(method).parameters))


def test_a_stack_with_a_redis_of_its_own_has_the_names_it_always_had() -> None:
    """Processes of older versions use the same ones."""
    assert (DEFAULT.tag, DEFAULT.guard) == ("{rpx}", "{rpx}:-")
    assert DEFAULT.catalogue_version() == "{rpx}:catalogue:version"
    assert DEFAULT.leader("router") == "{rpx}:leader:router"
    assert DEFAULT.function("acquire_v4") == "rpx_acquire_v4"
    assert DEFAULT.list_library == ("FUNCTION", "LIST", "LIBRARYNAME", "rpx")


@pytest.mark.parametrize("keys", [DEFAULT, OTHER])
@pytest.mark.parametrize("name", NAMED)
def test_every_key_has_the_tag_of_its_stack(keys: Keys, name: str) -> None:
    assert named(keys, name).startswith(f"{{{keys.namespace}}}:")


def test_no_two_keys_have_one_name() -> None:
    made = [named(keys, name) for keys in (DEFAULT, OTHER) for name in NAMED]
    assert len(made) > 20
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    "name",
    [n for n in NAMED if len(inspect.signature(getattr(Keys, n)).parameters) > 1],
)
def test_a_key_tells_whose_it_is(name: str) -> None:
    assert named(DEFAULT, name, "one") != named(DEFAULT, name, "two")


def test_a_stream_belongs_to_the_stack_whose_tag_it_has() -> None:
    assert OTHER.has_tag(OTHER.tagged_stream)
    assert not OTHER.has_tag(DEFAULT.tagged_stream)
    assert not Keys("b").has_tag(OTHER.tagged_stream)


@pytest.mark.parametrize(
    ("namespace", "valid"),
    [
        *(("rpx", True), ("a", True), ("a1_b", True), ("a" * 31, True)),
        *(("", False), ("A", False), ("1a", False), ("_a", False), ("a" * 32, False)),
        *(("a-b", False), ("a}b", False), ("a:b", False), ("ä", False), ("a\n", False)),
    ],
)
def test_what_a_namespace_may_be(namespace: str, *, valid: bool) -> None:
    assert (NAMESPACE.fullmatch(namespace) is not None) is valid


@pytest.mark.parametrize("stream", ["telemetry:events", "{rpx}:events"])
def test_streams_beside_the_telemetry_stream_share_its_slot(stream: str) -> None:
    assert dead_letters(stream) == f"{stream}:dead"
    assert payloads(stream) == f"{stream}:payloads"


def trees(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules in these folders, by import name."""
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            yield name, ast.parse(path.read_text())


def takers() -> Iterator[tuple[str, str]]:
    """Module and name of each function or class that is given keys."""
    for module, tree in trees("services", "libs"):
        for node in tree.body:
            makers: list[ast.stmt] = [node]
            if isinstance(node, ast.ClassDef):
                makers = [n for n in node.body if getattr(n, "name", "") == "__init__"]
            for maker in makers:
                if isinstance(maker, ast.FunctionDef) and "Keys" in {
                    ast.unparse(each.annotation)
                    for each in maker.args.args
                    if each.annotation is not None
                }:
                    yield module, getattr(node, "name", "")


def test_processes_say_whose_keys_they_mean() -> None:
    """The default is for tests: a process that forgot the namespace of its stack would
    use the keys of another one."""
    known = set(takers())
    assert {name for _, name in known} > {"RoutingFunctions", "KeyTable", "connect"}
    found = []
    for module, tree in trees("services", "libs/cli"):
        imports = (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom))
        named = {
            a.asname or a.name
            for i in imports
            for a in i.names
            if (i.module, a.name) in known
        }
        found += [
            (module, ast.unparse(node))
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in named
        ]
    assert len(found) >= 20
    passed = re.compile(r"\b(_|redis_)?keys\b")
    assert [each for each in found if not passed.search(each[1])] == []
