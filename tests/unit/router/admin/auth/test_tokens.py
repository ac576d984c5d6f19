"""Which admin token is valid, whatever happens to SQL."""

import asyncio
import json
from datetime import datetime
from pathlib import Path

import pytest

from libs.common.admin_token import ensure_file, replace_file, token_hash
from libs.common.errors import StoreAway
from services.router.admin.auth import tokens
from services.router.admin.auth.access import Holder
from services.router.admin.auth.tokens import FixedToken, KeptToken, NamedTokens
from services.router.errors import Problem
from tests.support.memory.clock import clock, timeless

ORIGIN = "http://127.0.0.1:8000"


class Rows:
    """A database of one row."""

    def __init__(self) -> None:
        self.hash: str | None = None
        self.away = False
        self.loses_answers = False
        self.looks = 0

    async def get(self) -> str | None:
        self.looks += 1
        if self.away:
            raise StoreAway("no route")
        return self.hash

    async def add(self, token_hash: str, at: datetime) -> bool:
        added = self.hash is None
        self.hash = self.hash or token_hash
        if self.loses_answers:
            raise StoreAway("cut off")
        return added


def links(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The tokens logged since the last call."""
    lines = capsys.readouterr()
    told = [json.loads(line) for line in lines.err.splitlines() if "{" in line]
    return [line["link"].partition("#token=")[2] for line in told if "link" in line]


@pytest.fixture(autouse=True)
def logging(monkeypatch: pytest.MonkeyPatch) -> None:
    from libs.common.runtime import logs  # noqa: PLC0415 - configured for this file alone

    logs.configure("router", "info")


@pytest.mark.asyncio
async def test_a_fixed_token() -> None:
    token = FixedToken("correct-horse")
    assert await token.accepts(b"correct-horse")
    assert not await token.accepts(b"correct-horse ")
    assert not await token.accepts(b"")


@pytest.mark.asyncio
async def test_the_first_router_makes_it_and_says_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Rows()
    first, second = (KeptToken(rows, tmp_path, ORIGIN) for _ in range(2))
    await first.make_first()
    await second.make_first()
    (token,) = links(capsys)
    assert rows.hash == token_hash(token.encode())
    for router in first, second:
        assert await router.accepts(token.encode())
        assert not await router.accepts(rows.hash.encode())
    await KeptToken(rows, tmp_path, ORIGIN).make_first()  # a later start
    assert links(capsys) == []


@pytest.mark.asyncio
async def test_a_lost_answer_loses_no_link(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "FRESH_S", 0.0)
    rows = Rows()
    rows.loses_answers = True
    router = KeptToken(rows, tmp_path, ORIGIN)
    await router.make_first()
    (token,) = links(capsys)
    assert await router.accepts(token.encode())


@pytest.mark.asyncio
async def test_nobody_gets_in_while_nobody_knows_the_token(tmp_path: Path) -> None:
    rows = Rows()
    rows.away = True
    router = KeptToken(rows, tmp_path, ORIGIN)
    with pytest.raises(Problem) as raised:
        await router.accepts(b"anything")
    assert (raised.value.status, raised.value.code) == (503, "admin_token_unknown")


@pytest.mark.asyncio
async def test_what_was_known_stays_in_force_without_sql(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "FRESH_S", 0.0)
    rows = Rows()
    router = KeptToken(rows, tmp_path, ORIGIN)
    await router.make_first()
    (token,) = links(capsys)
    rows.away = True
    assert await router.accepts(token.encode())
    assert not await router.accepts(b"another")


@pytest.mark.asyncio
async def test_guesses_do_not_each_ask_sql(tmp_path: Path) -> None:
    rows = Rows()
    router = KeptToken(rows, tmp_path, ORIGIN)
    await router.make_first()
    looks = rows.looks
    for _ in range(50):
        assert not await router.accepts(b"guess")
    assert rows.looks == looks


@pytest.mark.asyncio
async def test_a_new_one_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "FRESH_S", 0.0)
    rows = Rows()
    router = KeptToken(rows, tmp_path, ORIGIN)
    await router.make_first()
    rows.hash = token_hash(b"new")
    assert await router.accepts(b"new")


@pytest.mark.asyncio
async def test_the_file_of_the_data_directory_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Rows()
    token = ensure_file(tmp_path)
    router = KeptToken(rows, tmp_path, ORIGIN)
    await router.make_first()
    assert await router.accepts(token.encode())
    assert (rows.looks, links(capsys)) == (0, [])
    new = replace_file(tmp_path)
    assert await router.accepts(new.encode())
    assert not await router.accepts(token.encode())


class NamedRows:
    def __init__(self) -> None:
        self.away = False
        self.looks = 0
        self.kept = {token_hash(b"a"): ("ann", "viewer")}

    async def holders(self) -> dict[str, tuple[str, str]]:
        self.looks += 1
        if self.away:
            raise StoreAway("no route")
        return dict(self.kept)


@pytest.mark.asyncio
async def test_whose_a_named_token_is() -> None:
    rows = NamedRows()
    named = NamedTokens(rows)
    for _ in range(5):
        assert await named.holder(b"a") == Holder("ann", "viewer")
        assert await named.holder(b"guess") is None
    assert rows.looks == 1


@pytest.mark.asyncio
async def test_a_change_is_seen_at_once_and_kept_without_sql() -> None:
    rows = NamedRows()
    named = NamedTokens(rows)
    assert await named.holder(b"b") is None
    rows.kept[token_hash(b"b")] = ("bob", "admin")
    named.changed()
    assert await named.holder(b"b") == Holder("bob", "admin")
    rows.away = True
    named.changed()
    assert await named.holder(b"b") == Holder("bob", "admin")
    assert rows.looks == 3


@pytest.mark.asyncio
async def test_nobody_is_turned_away_while_no_name_is_known() -> None:
    rows = NamedRows()
    rows.away = True
    named = NamedTokens(rows)
    for _ in range(2):
        with pytest.raises(Problem) as raised:
            await named.holder(b"a")
        assert (raised.value.status, raised.value.code) == (503, "admin_token_unknown")
    assert rows.looks == 1


@timeless
async def test_while_sql_hangs_requests_do_not_wait_one_after_the_other() -> None:
    rows = NamedRows()

    async def hangs() -> dict[str, tuple[str, str]]:
        rows.looks += 1
        await asyncio.Event().wait()
        return {}

    rows.holders = hangs  # type: ignore[method-assign]
    named = NamedTokens(rows)
    began = clock().time()
    asked = [named.holder(b"a") for _ in range(20)]
    refused = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, Problem) for each in refused)
    assert (rows.looks, clock().time() - began) == (1, tokens.PATIENCE_S)
