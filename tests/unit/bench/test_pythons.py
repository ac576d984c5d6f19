"""Which Pythons a benchmark compares."""

import platform
import sys
from pathlib import Path

import pytest

from bench.parts.servers import NotStarted
from bench.pythons import pythons

OWN = platform.python_version().rpartition(".")[0]


def test_this_python_is_one_of_them() -> None:
    assert pythons("") == {OWN: sys.executable}


def test_others_are_named_with_their_paths() -> None:
    assert pythons("a=/opt/a b/python, b=build/python,") == {
        OWN: sys.executable,
        "a": "/opt/a b/python",
        "b": str(Path.cwd() / "build/python"),
    }


@pytest.mark.parametrize("named", ["/usr/bin/python3", "a=/x,a=/y", f"{OWN}=/x"])
def test_each_has_a_name_of_its_own(named: str) -> None:
    with pytest.raises(NotStarted, match="not name=path, or a second one"):
        pythons(named)
