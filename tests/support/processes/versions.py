"""Processes of an older version of this repository beside those of the checkout, for
tests of upgrades."""

import json
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.support.processes.fleet import Member
from tests.support.processes.processes import ROOT, Process, bare_environment

_COMMAND = """
import json, os, sys
from libs.cli.commands import service_command
print(json.dumps(service_command(sys.argv[1], os.environ)))
"""
# The older code is not part of what coverage measures.
_UNMEASURED = ("env", "-u", "COVERAGE_PROCESS_START", "-u", "COVERAGE_PROCESS_CONFIG")


def checked_out(commit: str, folder: Path) -> Path:
    """The files of `commit` in `folder`. A clone without that commit skips the test,
    except in CI, whose clone has the whole history; so does a Python that did not exist
    for that version."""
    archive = subprocess.run(
        ["git", "archive", commit, "services", "libs", "pyproject.toml"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        missing = f"commit {commit[:7]} is not in this clone: {archive.stderr.decode()}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    if platform.python_version() not in SpecifierSet(project["requires-python"]):
        pytest.skip(f"commit {commit[:7]} is for Python {project['requires-python']}")
    return folder


class OldMember(Member):
    """One process of the version in `code`, run by the tests' interpreter and
    libraries."""

    def __init__(
        self, name: str, env: Mapping[str, str], log: Path, code: Path
    ) -> None:
        self._code = code
        super().__init__(name, env, log)

    def _started(self) -> Process:
        self._env.setdefault("PROXY_DRAIN_SECONDS", "2")
        # Before the installed package, which is the checkout.
        self._env["PYTHONPATH"] = str(self._code)
        printed = subprocess.run(
            [*_UNMEASURED, sys.executable, "-P", "-c", _COMMAND, self._name],
            env={**bare_environment(), **self._env},
            capture_output=True, check=True,
        )  # fmt: skip
        return Process(
            [*_UNMEASURED, *json.loads(printed.stdout)], self._env, self._log
        )
