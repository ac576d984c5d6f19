"""The file that `up` keeps the admin token in."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libs.common.admin_token import (
    FILE,
    ensure_file,
    login_link,
    new_token,
    read_file,
    replace_file,
    token_hash,
)


def mode(folder: Path) -> int:
    return (folder / FILE).stat().st_mode & 0o777


def test_a_token_is_made_once(tmp_path: Path) -> None:
    token = ensure_file(tmp_path)
    assert ensure_file(tmp_path) == read_file(tmp_path) == token
    assert len(token) == 43  # 256 bits
    assert mode(tmp_path) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_of_several_that_make_one_one_wins(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: ensure_file(tmp_path), range(64)))
    assert tokens == {read_file(tmp_path)}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_it_is_replaced_whole(tmp_path: Path) -> None:
    first = ensure_file(tmp_path)
    second = replace_file(tmp_path)
    assert first != second == read_file(tmp_path)
    assert mode(tmp_path) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("kept-from-before\n")
    (tmp_path / FILE).chmod(0o644)
    assert ensure_file(tmp_path) == "kept-from-before"
    assert mode(tmp_path) == 0o600


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_token_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read_file(tmp_path) is None
    assert ensure_file(tmp_path) == read_file(tmp_path)


def test_no_file_no_token(tmp_path: Path) -> None:
    assert read_file(tmp_path) is None
    assert read_file(tmp_path / "nowhere") is None


def test_the_link_tells_servers_nothing() -> None:
    token = new_token()
    link = login_link("http://127.0.0.1:8000", token)
    assert link == f"http://127.0.0.1:8000/#token={token}"
    assert token_hash(token.encode()) != token_hash(new_token().encode())
