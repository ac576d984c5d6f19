"""`make test-python`, where it cannot run."""

import subprocess

from tests.support.processes.processes import ROOT


def test_a_version_that_is_nowhere_is_refused_in_one_line() -> None:
    done = subprocess.run(
        ["bash", ROOT / "tests/pythons/run.sh", "3.99"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    expected = "Debian has no Python 3.99: install python3.99 with its headers"
    assert (done.returncode, done.stderr) == (1, f"test-python: {expected}\n")
