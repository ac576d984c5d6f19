"""Which database a URL means. Nothing is connected to."""

from pathlib import Path

import pytest

from libs.common.store import factory
from libs.common.store.factory import open_store
from libs.common.store.postgres.store import PostgresStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/proxy.sqlite3", Path("data/proxy.sqlite3")),
        ("sqlite:////var/lib/proxy.sqlite3", Path("/var/lib/proxy.sqlite3")),
    ],
)
def test_a_file(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(factory, "SqliteStore", opened.append)
    open_store(url)
    assert opened == [path]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
@pytest.mark.asyncio
async def test_a_server(scheme: str) -> None:
    store = open_store(f"{scheme}://u:hush@db.example/d")
    assert isinstance(store, PostgresStore)
    await store.close()
