"""What of the checkout is installed on an instance."""

import io
import tarfile
from pathlib import Path

import pytest

from scripts.morph import artifact


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (
        *("pyproject.toml", "README.md", "requirements.lock", "scripts/morph/x.py"),
        *("scripts/morph/on_instance.py", "libs/a.py", "libs/sub/b.sql"),
        *("services/c.lua", "services/.env", "libs/key.pem", "libs/d.pyc", ".env"),
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def test_only_files_of_packages_are_taken(checkout: Path) -> None:
    assert sorted(artifact.application(checkout)) == [
        *("README.md", "libs/a.py", "libs/sub/b.sql", "pyproject.toml"),
        *("scripts/morph/on_instance.py", "services/c.lua"),
    ]
    assert list(artifact.dependencies(checkout)) == ["requirements.lock"]


def test_every_suffix_of_the_packages_is_known() -> None:
    found = {
        path.suffix
        for package in ("libs", "services")
        for path in (artifact.ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    # What `make compile` makes is not deployed.
    assert found - {".so", ".json"} <= artifact.SUFFIXES


def test_the_digest_covers_names_and_contents(checkout: Path) -> None:
    before = artifact.digest(artifact.application(checkout))
    assert artifact.digest(artifact.application(checkout)) == before
    assert artifact.digest({"a": b"bc"}) != artifact.digest({"ab": b"c"})
    (checkout / "libs/a.py").write_text("changed")
    assert artifact.digest(artifact.application(checkout)) != before


def test_the_archive_holds_the_files_and_is_reproducible() -> None:
    files = {"libs/a.py": b"a", "b": b"bb"}
    packed = artifact.packed(files)
    assert packed == artifact.packed(dict(reversed(files.items())))
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert tar.getnames() == ["b", "libs/a.py"]
        assert {(member.uid, member.mtime) for member in tar} == {(0, 0)}
