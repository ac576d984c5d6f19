"""Journal folders: one for each gateway process, locked while the process lives.

The name of the lock file says which format the segments have: gateways of an older
version, which cannot read them, find no lock of theirs and leave the folder alone."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from services.gateway.ledger.journal.segments import Segment, create

LOCK = "lock-2"
LOCK_BEFORE = "lock"  # 0.1
LOCKS = (LOCK, LOCK_BEFORE)


class JournalFolder:
    """A gateway's own folder, created and locked with its first segment."""

    def __init__(self, root: Path, gateway_id: str, segment_bytes: int) -> None:
        self._root = root
        self._hidden = root / f".{gateway_id}"
        self._segment_bytes = segment_bytes
        self._lock: int | None = None
        self._numbers = count()  # for file names; segments have their own numbers
        self.path = root / gateway_id

    def new_segment(self) -> Segment:
        """A new file that is not yet part of the log. Raises `OSError`."""
        if self._lock is None:
            self._open()
        name = f"{next(self._numbers):06d}.log"
        return create(self.path / name, self._segment_bytes)

    def _open(self) -> None:
        """Locks the folder before it gets its name, so that recovery never finds it
        unlocked while this process lives."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._hidden.mkdir(mode=0o700, exist_ok=True)
        self._lock = _locked(self._hidden)
        if self._lock is None:
            raise OSError(f"journal folder {self.path} is in use by another process")
        self._hidden.rename(self.path)

    def discard(self, segment: Segment) -> None:
        """Closes the segment and deletes its file."""
        segment.close()
        if segment.path is not None:
            segment.path.unlink(missing_ok=True)

    def close(self, *, empty: bool) -> None:
        """Releases the lock. `empty`: nothing is left to recover; delete the folder."""
        if self._lock is None:
            return
        if empty:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def left_behind(root: Path, own: Path) -> list[Path]:
    """The folders of other gateways, running or crashed."""
    try:
        found = sorted(root.iterdir())
    except OSError:  # reported by the journal itself
        return []
    return [f for f in found if f != own and not f.name.startswith(".") and f.is_dir()]


@contextmanager
def locked_if_orphaned(folder: Path) -> Iterator[bool]:
    """Locks another gateway's folder. Yields False if that gateway still runs."""
    name = next((name for name in LOCKS if (folder / name).exists()), None)
    lock = _locked(folder, name) if name else None
    try:
        # The previous holder of the lock may have deleted the folder.
        yield lock is not None and name is not None and (folder / name).exists()
    finally:
        if lock is not None:
            os.close(lock)


def remove(folder: Path) -> None:
    """Deletes the folder, the lock file last, so that nobody else recovers it."""
    for path in folder.iterdir():
        if path.name not in LOCKS:
            path.unlink()
    shutil.rmtree(folder)


def _locked(folder: Path, name: str = LOCK) -> int | None:
    """The descriptor of the lock, or None when another process holds it."""
    file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        os.close(file)
        raise
    return file
