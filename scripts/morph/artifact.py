"""The files of this checkout that are installed on the instance."""

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What packages are made of (pyproject.toml, package-data). A list of what is allowed:
# a file with secrets that lies in the checkout must not reach the snapshot.
SUFFIXES = {".py", ".sql", ".lua", ".html", ".js", ".css", ".svg", ".conf", ".txt"}

Files = Mapping[str, bytes]  # path -> content


def dependencies(root: Path = ROOT) -> Files:
    """The lock file."""
    return {"requirements.lock": (root / "requirements.lock").read_bytes()}


def application(root: Path = ROOT) -> Files:
    """The packages, their metadata, and the program that starts them."""
    single = ("pyproject.toml", "README.md", "scripts/morph/on_instance.py")
    paths = (*(root / name for name in single), *_packages(root))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def _packages(root: Path) -> Iterator[Path]:
    for package in ("libs", "services"):
        for path in sorted((root / package).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path


def digest(files: Files) -> str:
    """The digest of names and contents."""
    whole = sha256()
    for path, content in sorted(files.items()):
        whole.update(f"{path}\n{len(content)}\n".encode() + content)
    return whole.hexdigest()


def packed(files: Files) -> bytes:
    """The files as .tar.gz; the same files give the same bytes."""
    archive = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
