"""Where journals lie: a folder for each gateway process, locked while it lives."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from services.gateway.ledger.journal.segments import Segment, create

LOCK = "lock"


class JournalFolder:
    """A gateway's own folder, made and locked when the first segment is."""

    def __init__(self, root: Path, gateway_id: str, segment_bytes: int) -> None:
        self._root = root
        self._hidden = root / f".{gateway_id}"
        self._segment_bytes = segment_bytes
        self._lock: int | None = None
        self._numbers = count()  # of files, whatever part of the log they become
        self.path = root / gateway_id

    def new_segment(self) -> Segment:
        """A file, not yet part of the log. Raises `OSError`."""
        if self._lock is None:
            self._open()
        name = f"{next(self._numbers):06d}.log"
        return create(self.path / name, self._segment_bytes)

    def _open(self) -> None:
        """Locked before it has its name: nobody may find it without an owner."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._hidden.mkdir(mode=0o700, exist_ok=True)
        self._lock = _locked(self._hidden)
        if self._lock is None:
            raise OSError("the journal's folder is in use")
        self._hidden.rename(self.path)

    def discard(self, segment: Segment) -> None:
        """Give its space back."""
        segment.close()
        if segment.path is not None:
            segment.path.unlink(missing_ok=True)

    def close(self, *, empty: bool) -> None:
        """Let go; `empty`: there is nothing to be found by a successor."""
        if self._lock is None:
            return
        if empty:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def left_behind(root: Path, own: Path) -> list[Path]:
    """Folders of other gateways, dead or alive."""
    try:
        found = sorted(root.iterdir())
    except OSError:  # the journal itself says what is wrong with it
        return []
    return [f for f in found if f != own and not f.name.startswith(".") and f.is_dir()]


@contextmanager
def locked_if_orphaned(folder: Path) -> Iterator[bool]:
    """True while the folder is ours because its owner is dead."""
    lock = _locked(folder) if (folder / LOCK).exists() else None
    try:
        # Who held the lock a moment ago may have emptied the folder.
        yield lock is not None and (folder / LOCK).exists()
    finally:
        if lock is not None:
            os.close(lock)


def remove(folder: Path) -> None:
    """All of it, the lock last: until then nobody else begins with it."""
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
    shutil.rmtree(folder)


def _locked(folder: Path) -> int | None:
    """The lock's descriptor, or None when another process holds it."""
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        os.close(file)
        raise
    return file
