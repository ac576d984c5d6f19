"""Every module that says it is pure is held to it by import-linter."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PURE = re.compile(r"\bPure\b(?!,?\s+but\b)")
CONTRACT = "pure modules decide: they reach no clock, chance, loop or connection"


def pure_modules() -> set[str]:
    files = (
        file for part in ("services", "libs") for file in ROOT.glob(f"{part}/**/*.py")
    )
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in files
        if PURE.search(text := file.read_text())  # parsing all would take longer
        and PURE.search(ast.get_docstring(ast.parse(text)) or "")
    }


def listed() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (found,) = [each for each in contracts if each["name"] == CONTRACT]
    modules: list[str] = found["source_modules"]
    return modules


def test_every_module_that_says_it_is_pure_is_in_the_contract() -> None:
    assert pure_modules() - set(listed()) == set()


def test_the_contract_is_sorted_and_lists_modules_that_exist() -> None:
    modules = listed()
    assert modules == sorted(set(modules))
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
