"""Providers and model aliases in SQL, here in a file. The same on Postgres is in
tests/integration/router/registry/test_rows.py."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.catalogue import Alias
from libs.common.store.providers import RegistryRows
from libs.common.store.sqlite.store import SqliteStore

pytestmark = pytest.mark.asyncio
BORN = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
BORN_TEXT = "2026-01-02T03:04:05.678Z"
LATER = BORN + timedelta(seconds=1)
PROVIDER: dict[str, Any] = {
    "id": "acme",
    "name": "Acme",
    "provider_type": "custom",
    "base_url": "http://127.0.0.1:1/v1",
    "wire_api": "responses",
    "auth_type": "bearer",
    "api_key_sealed": "T,U",
    "credential_ref": None,
    "pool_id": None,
    "account_id": None,
    "weight": 1.5,
    "enabled": True,
}
MODEL: dict[str, Any] = {
    "alias": "team/fast",
    "provider_id": "acme",
    "upstream_id": "gpt",
    "enabled": True,
}

TARGET = {"provider_id": "acme", "upstream_id": "gpt", "weight": 1.0, "priority": 0}
SECOND = {"provider_id": "beta", "upstream_id": "gpt-b", "weight": 3.0, "priority": 1}


@pytest_asyncio.fixture
async def rows(tmp_path: Path) -> AsyncIterator[RegistryRows]:
    store = SqliteStore(tmp_path / "proxy.sqlite3")
    await store.migrate()
    yield RegistryRows(store.fetch)
    await store.close()


async def test_a_provider_is_kept_as_it_was_given(rows: RegistryRows) -> None:
    shown = {**PROVIDER, "created_at": BORN_TEXT, "updated_at": BORN_TEXT}
    assert await rows.add_provider(PROVIDER, BORN) == shown
    assert await rows.provider("acme") == shown
    assert await rows.providers() == [shown]


async def test_an_id_is_taken_once(rows: RegistryRows) -> None:
    await rows.add_provider(PROVIDER, BORN)
    assert await rows.add_provider({**PROVIDER, "name": "again"}, LATER) is None
    assert [row["name"] for row in await rows.providers()] == ["Acme"]


@pytest.mark.parametrize("id_", ["nobody", "no\0body", "\ud83d"])
async def test_what_is_not_there(rows: RegistryRows, id_: str) -> None:
    assert await rows.provider(id_) is None
    assert await rows.model(id_) is None
    assert await rows.change_provider(id_, {"weight": 2}, LATER) is None
    assert await rows.change_model(id_, {"enabled": False}, LATER) is None


async def test_what_is_named_changes_and_nothing_else(rows: RegistryRows) -> None:
    before = await rows.add_provider(PROVIDER, BORN)
    assert before is not None
    changed = await rows.change_provider("acme", {"enabled": False}, LATER)
    later = "2026-01-02T03:04:06.678Z"
    assert changed == {**before, "enabled": False, "updated_at": later}


async def test_keys_sealed_anew_replace_those_they_were_made_of(
    rows: RegistryRows,
) -> None:
    await rows.add_provider(PROVIDER, BORN)
    assert not await rows.reseal("acme", "older", "V")
    assert await rows.reseal("acme", "T,U", "V")
    found = await rows.provider("acme")
    assert found is not None
    assert found["api_key_sealed"] == "V"


async def test_an_alias_needs_its_provider(rows: RegistryRows) -> None:
    assert await rows.add_model(MODEL, BORN) is None
    await rows.add_provider(PROVIDER, BORN)
    added = await rows.add_model(MODEL, BORN)
    times = dict.fromkeys(("created_at", "updated_at"), BORN_TEXT)
    assert added == {**MODEL, "targets": [TARGET], **times}
    assert await rows.add_model(MODEL, BORN) is None
    assert await rows.model("team/fast") == added
    assert await rows.models() == [added]
    assert not await rows.delete_provider("acme")
    assert await rows.delete_model("team/fast")
    assert not await rows.delete_model("team/fast")
    assert await rows.delete_provider("acme")


async def test_all_of_it_with_the_aliases_that_are_enabled(rows: RegistryRows) -> None:
    await rows.add_provider(PROVIDER, BORN)
    await rows.add_model(MODEL, BORN)
    await rows.add_model({**MODEL, "alias": "off", "enabled": False}, BORN)
    await rows.change_model("team/fast", {"upstream_id": "gpt-6"}, LATER)
    registry = await rows.registry()
    assert [provider.sealed for provider in registry.providers] == [("T", "U")]
    assert registry.aliases == (
        Alias(alias="team/fast", provider_id="acme", upstream_id="gpt-6"),
    )


async def test_an_alias_with_several_targets(rows: RegistryRows) -> None:
    for id_ in ("acme", "beta"):
        await rows.add_provider({**PROVIDER, "id": id_}, BORN)
    added = await rows.add_model({**MODEL, "targets": [TARGET, SECOND]}, BORN)
    assert added is not None
    assert added["targets"] == [TARGET, SECOND]
    assert await rows.models() == [added]
    # A provider of any target stays.
    assert not await rows.delete_provider("beta")
    changed = await rows.change_model("team/fast", {"enabled": False}, LATER)
    assert changed is not None
    assert changed["targets"] == [TARGET, SECOND]
    reversed_ = {**SECOND, "priority": 0}
    fields = {"provider_id": "beta", "upstream_id": "gpt-b", "targets": [reversed_]}
    changed = await rows.change_model("team/fast", fields, LATER)
    assert changed is not None
    assert changed["targets"] == [reversed_]
    changed = await rows.change_model("team/fast", {"targets": None}, LATER)
    assert changed is not None
    assert changed["targets"] == [{**reversed_, "weight": 1.0}]
    assert await rows.delete_provider("acme")


async def test_an_older_router_changes_an_alias_with_several(
    rows: RegistryRows,
) -> None:
    for id_ in ("acme", "beta"):
        await rows.add_provider({**PROVIDER, "id": id_}, BORN)
    await rows.add_model({**MODEL, "targets": [TARGET, SECOND]}, BORN)
    # It does not know the column.
    changed = await rows.change_model("team/fast", {"upstream_id": "gpt-6"}, LATER)
    assert changed is not None
    assert changed["targets"] == [{**TARGET, "upstream_id": "gpt-6"}]
