"""Builds the package; everything about it is in pyproject.toml.

With PROXY_COMPILE=1 the modules of `[tool.compiled]` are compiled: by `make compile`
into this checkout, by `pip wheel .` into a wheel for this platform. Without it a wheel
is for every platform. See docs/adr/0011-mypyc.md."""

import ast
import json
import os
import runpy
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
# As a script: importing `libs` would load what is compiled already.
COMPILED = runpy.run_path(str(ROOT / "libs/common/runtime/compiled.py"))
MODULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["compiled"]
METADATA_ONLY = {"egg_info", "dist_info"}
PATHS = [f"{name.replace('.', '/')}.py" for name in MODULES["modules"]]


class BuildExt(build_ext):
    """Adds the digests of the sources, by which a stale shared object is found."""

    def run(self) -> None:
        super().run()
        if self.extensions:
            place = ROOT if self.inplace else Path(self.build_lib)
            known = {
                path: COMPILED["digest"](ROOT / path) for path in sorted(sources())
            }
            record = json.dumps(known, indent=0)
            (place / "libs" / COMPILED["RECORD"]).write_text(record)


def sources() -> set[str]:
    """The compiled modules, and those that they import: mypyc uses the types and the
    constants of these."""
    found = set(PATHS)
    for path in PATHS:
        for name in imported(ast.parse((ROOT / path).read_text())):
            module = f"{name.replace('.', '/')}.py"
            if name.startswith(("libs.", "services.")) and (ROOT / module).exists():
                found.add(module)
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Names that may be those of modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def extensions() -> list[Extension]:
    # setuptools also runs this file for metadata only.
    if os.environ.get("PROXY_COMPILE") != "1" or METADATA_ONLY & set(sys.argv):
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 - only compiling needs it

    made: list[Extension] = mypycify(
        PATHS,
        group_name="libs.compiled",
        opt_level="2",
        debug_level="0",
        target_dir="build/mypyc",
    )
    for each in made:
        # gcc reads its 50 MB of C again for each such warning: most of the time.
        each.extra_compile_args.append("-Wno-misleading-indentation")
        # Functions of one shared object call each other directly, and those of Python
        # without a jump in between.
        each.extra_compile_args += ["-fno-semantic-interposition", "-fno-plt"]
    return made


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
