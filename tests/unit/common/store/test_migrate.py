"""Which migrations a database needs, before any database."""

import pytest

from libs.common.store.interface import SchemaTooNew
from libs.common.store.migrate import Migration, known_migrations, pending

ONE, TWO = Migration(1, "0001_a", ""), Migration(2, "0002_b", "")


def test_migrations_go_forward() -> None:
    assert pending([ONE, TWO], 0) == [ONE, TWO]
    assert pending([ONE, TWO], 1) == [TWO]
    assert pending([ONE, TWO], 2) == []


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(SchemaTooNew, match=r"has schema version 3, but .* supports 2"):
        pending([ONE, TWO], 3)


def test_both_databases_have_the_same_migrations() -> None:
    names = [[m.name for m in known_migrations(d)] for d in ("postgres", "sqlite")]
    assert names[0] == names[1]


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_they_are_numbered_without_gaps(database: str) -> None:
    found = known_migrations(database)
    assert [m.version for m in found] == list(range(1, len(found) + 1))
    assert all(m.script.strip() for m in found)
