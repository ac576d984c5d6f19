"""The ownership of a journal's folder, and who may take it over."""

import errno
import fcntl
from pathlib import Path

import pytest

from services.gateway.ledger.journal.folder import (
    LOCK,
    LOCK_BEFORE,
    JournalFolder,
    left_behind,
    locked_if_orphaned,
    remove,
)

SIZE = 4096


def folder(root: Path, gateway_id: str = "gw") -> JournalFolder:
    return JournalFolder(root, gateway_id, SIZE)


def test_a_folder_is_made_with_its_first_segment(tmp_path: Path) -> None:
    own = folder(tmp_path / "journal")
    assert not (tmp_path / "journal").exists()
    first, second = own.new_segment(), own.new_segment()
    assert sorted(f.name for f in own.path.iterdir()) == [
        "000000.log", "000001.log", LOCK,
    ]  # fmt: skip
    assert own.path.stat().st_mode & 0o777 == 0o700
    own.discard(first)
    assert first.path is not None
    assert not first.path.exists()
    own.discard(second)


def test_it_is_found_by_others_and_hidden_from_itself(tmp_path: Path) -> None:
    own, other = folder(tmp_path, "own"), folder(tmp_path, "other")
    own.new_segment()
    other.new_segment()
    (tmp_path / ".begun").mkdir()
    (tmp_path / "file").write_text("")
    assert left_behind(tmp_path, own.path) == [other.path]
    assert left_behind(tmp_path / "nowhere", own.path) == []


def test_while_its_owner_lives_nobody_takes_it_over(tmp_path: Path) -> None:
    own = folder(tmp_path)
    own.new_segment()
    with locked_if_orphaned(own.path) as ours:
        assert not ours
    own.close(empty=False)
    with locked_if_orphaned(own.path) as ours:
        assert ours
        with locked_if_orphaned(own.path) as again:
            assert not again
    with locked_if_orphaned(own.path) as ours:
        assert ours


def test_a_folder_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    with (tmp_path / LOCK_BEFORE).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with locked_if_orphaned(tmp_path) as ours:
            assert not ours
    with locked_if_orphaned(tmp_path) as ours:
        assert ours
    remove(tmp_path)
    assert not tmp_path.exists()


def test_a_folder_without_a_lock_is_nobodys(tmp_path: Path) -> None:
    with locked_if_orphaned(tmp_path) as ours:
        assert not ours
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty", [True, False])
def test_what_is_empty_is_not_left_behind(tmp_path: Path, empty: bool) -> None:
    own = folder(tmp_path)
    own.new_segment()
    own.close(empty=empty)
    own.close(empty=True)  # said once
    assert own.path.exists() is not empty


def test_a_folder_that_was_never_made_can_be_closed(tmp_path: Path) -> None:
    folder(tmp_path).close(empty=True)
    assert list(tmp_path.iterdir()) == []


def test_a_removed_folder_is_gone_with_all_in_it(tmp_path: Path) -> None:
    own = folder(tmp_path)
    own.new_segment()
    own.close(empty=False)
    remove(own.path)
    assert list(tmp_path.iterdir()) == []


def test_two_gateways_of_one_name_do_not_share(tmp_path: Path) -> None:
    hidden = tmp_path / ".gw"
    hidden.mkdir()
    with (hidden / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="in use"):
            folder(tmp_path).new_segment()


def test_a_disk_that_cannot_lock_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unable)
    with pytest.raises(OSError, match="No locks"):
        folder(tmp_path).new_segment()
