"""Fixtures: a store on either database, migrated and empty for each test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from libs.common.store.factory import open_store
from libs.common.store.store import Store
from tests.support.databases.postgres import emptied_database


@contextmanager
def database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of an empty database of `sqlite`, `postgres` or `debian_postgres`."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/deep/proxy.sqlite3"
        return
    with emptied_database(request.getfixturevalue(f"{kind}_server")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, request, tmp_path) as url:
        yield url


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = open_store(url)
    await opened.migrate()
    yield opened
    await opened.close()
