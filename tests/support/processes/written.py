"""Reads what running services wrote, to search for what must not be there."""

from collections.abc import Iterator
from pathlib import Path


def written_files(folder: Path, pattern: str = "*") -> Iterator[tuple[Path, bytes]]:
    """The files below `folder` with this name, and their content. Leaves out those that
    a service deletes meanwhile, such as files of its journal."""
    for path in folder.rglob(pattern):
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        yield path, content


def written(folder: Path, pattern: str = "*") -> bytes:
    """The content of all these files."""
    return b"\n".join(content for _, content in written_files(folder, pattern))
