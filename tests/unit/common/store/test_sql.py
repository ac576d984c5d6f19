"""SQL by the names of its files."""

import pytest

from libs.common.store.sql import HERE, Statements

SQLITE, POSTGRES = Statements("sqlite"), Statements("postgres")


def names(database: str) -> set[str]:
    folders = (HERE / "queries" / folder for folder in (database, "both"))
    return {file.stem for folder in folders for file in folder.glob("*.sql")}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_every_file_is_a_statement_by_its_name(database: str) -> None:
    statements = Statements(database)
    assert names(database)
    for name in names(database):
        assert statements[name].strip()


def test_a_statement_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        SQLITE["nothing_like_this"]


# What proxy_keys.py and registry.py ask either database for, by one name.
SHARED = (
    *("add_proxy_key", "proxy_keys", "proxy_key", "change_proxy_key"),
    *("revoke_proxy_key", "proxy_key_records"),
    *("providers", "add_provider", "change_provider", "delete_provider"),
    *("reseal_provider", "models", "add_model", "change_model", "delete_model"),
)


@pytest.mark.parametrize("name", SHARED)
def test_what_is_fetched_by_name_is_in_both_databases(name: str) -> None:
    assert SQLITE[name].strip()
    assert POSTGRES[name].strip()


def test_a_shared_statement_is_in_the_words_of_each_database() -> None:
    assert "(1, :token_hash, :created_at)" in SQLITE["put_admin_token"]
    values = "(1, %(token_hash)s, %(created_at)s::timestamptz)"
    assert values in POSTGRES["put_admin_token"]
