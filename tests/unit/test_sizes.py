"""The bounds of CONTRIBUTING.md: modules that are read at once, packages that are
searched at once."""

import ast
from collections import Counter

from tests.support.processes.processes import ROOT

PRODUCT = ("libs", "services", "scripts")
MODULES = 14  # of a package itself
LINES = 350  # of a module
FUNCTION = 50  # lines of a function

FILES = [
    file
    for folder in PRODUCT
    for file in (ROOT / folder).rglob("*.py")
    if file.name != "__init__.py"
]


def test_no_package_has_many_modules() -> None:
    counted = Counter(str(file.parent.relative_to(ROOT)) for file in FILES)
    assert {name: n for name, n in counted.items() if n > MODULES} == {}


def test_no_module_is_long() -> None:
    lines = {str(file.relative_to(ROOT)): _lines(file.read_text()) for file in FILES}
    assert {name: n for name, n in lines.items() if n > LINES} == {}


def test_no_function_is_long() -> None:
    lengths = {
        f"{file.relative_to(ROOT)}:{node.lineno}": node.end_lineno - node.lineno + 1
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert {name: n for name, n in lengths.items() if n > FUNCTION} == {}


def _lines(text: str) -> int:
    return text.count("\n")
