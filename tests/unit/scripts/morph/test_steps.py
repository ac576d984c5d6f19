"""The steps and their digests."""

import subprocess
from pathlib import Path

import pytest

from scripts.morph.steps import UNIT, Step, steps


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "README.md", "requirements.lock", "libs/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "scripts/morph").mkdir(parents=True)
    (tmp_path / "scripts/morph/on_instance.py").touch()
    return tmp_path


def unchanged(before: tuple[Step, ...], after: tuple[Step, ...]) -> list[str]:
    pairs = zip(before, after, strict=True)
    return [a.name for a, b in pairs if a.digest == b.digest]


def test_a_change_affects_its_step_and_those_after_it(checkout: Path) -> None:
    before = tuple(steps("snapshot a", checkout))
    names = ["system", "dependencies", "application"]
    assert unchanged(before, tuple(steps("snapshot a", checkout))) == names
    assert unchanged(before, tuple(steps("snapshot b", checkout))) == []

    (checkout / "libs/a.py").write_text("changed")
    after = tuple(steps("snapshot a", checkout))
    assert unchanged(before, after) == ["system", "dependencies"]
    (checkout / "requirements.lock").write_text("changed")
    assert unchanged(after, tuple(steps("snapshot a", checkout))) == ["system"]


def test_scripts_are_valid_shell() -> None:
    for step in steps("snapshot a"):
        subprocess.run(["/bin/sh", "-n", "-c", step.script], check=True)


def test_the_unit_keeps_the_environment_from_other_users() -> None:
    lines = UNIT.splitlines()
    assert "User=responses-proxy" in lines
    credential = "LoadCredential=deployment:/etc/responses-proxy/deployment.json"
    assert credential in lines
    assert not [line for line in lines if line.startswith("Environment")]
