"""The databases that the store's guarantees hold on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases.stores import database

DATABASES = ("sqlite", "postgres", "debian_postgres")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, request, tmp_path) as url:
        yield url
