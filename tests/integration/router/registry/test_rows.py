"""Providers and model aliases in SQL, on either database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.catalogue import Alias
from libs.common.providers.registry import provider_of
from libs.common.store.factory import open_store
from libs.common.store.providers import RegistryRows
from libs.common.store.store import Store

pytestmark = pytest.mark.asyncio
BORN = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
LATER = BORN + timedelta(seconds=1)
FIELDS: dict[str, Any] = {
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
SHOWN = {
    **FIELDS,
    "created_at": "2026-01-02T03:04:05.678Z",
    "updated_at": "2026-01-02T03:04:05.678Z",
}
MODEL = {
    "alias": "team/fast",
    "provider_id": "acme",
    "upstream_id": "gpt",
    "enabled": True,
}

TARGET = {"provider_id": "acme", "upstream_id": "gpt", "weight": 1.0, "priority": 0}
SECOND = {"provider_id": "beta", "upstream_id": "gpt-b", "weight": 3.0, "priority": 1}


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def rows(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[RegistryRows]:
    url = f"sqlite:///{tmp_path}/proxy.sqlite3"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    store: Store = open_store(url)
    await store.migrate()
    yield RegistryRows(store.fetch)
    await store.close()


async def test_providers_are_kept(rows: RegistryRows) -> None:
    assert await rows.add_provider(FIELDS, BORN) == SHOWN
    assert await rows.add_provider({**FIELDS, "name": "again"}, BORN) is None
    second = {**FIELDS, "id": "zeta", "api_key_sealed": None}
    await rows.add_provider(second, BORN - timedelta(days=1))
    assert [p["id"] for p in await rows.providers()] == ["zeta", "acme"]
    assert await rows.provider("acme") == SHOWN
    assert await rows.provider("no\0body") is None
    assert provider_of(SHOWN).sealed == ("T", "U")


async def test_what_is_named_is_changed_and_nothing_else(rows: RegistryRows) -> None:
    await rows.add_provider(FIELDS, BORN)
    changed = await rows.change_provider("acme", {"enabled": False}, LATER)
    assert changed == {
        **SHOWN,
        "enabled": False,
        "updated_at": "2026-01-02T03:04:06.678Z",
    }
    everything = {
        **{name: f"{value}x" for name, value in FIELDS.items()},
        "weight": 2.25,
        "enabled": True,
        "pool_id": "p",
        "account_id": "a",
        "credential_ref": "env:ACME",
        "api_key_sealed": None,
    }
    del everything["id"]
    changed = await rows.change_provider("acme", everything, LATER)
    assert changed is not None
    assert {name: changed[name] for name in everything} == everything
    assert await rows.change_provider("nobody", {"weight": 1}, LATER) is None


async def test_keys_sealed_anew_replace_only_what_they_were_made_of(
    rows: RegistryRows,
) -> None:
    await rows.add_provider(FIELDS, BORN)
    assert not await rows.reseal("acme", "older", "V,W")
    assert await rows.reseal("acme", "T,U", "V,W")
    found = await rows.provider("acme")
    assert found is not None
    assert (found["api_key_sealed"], found["updated_at"]) == (
        "V,W",
        SHOWN["updated_at"],
    )


async def test_aliases_are_kept(rows: RegistryRows) -> None:
    assert await rows.add_model(MODEL, BORN) is None  # there is no such provider
    await rows.add_provider(FIELDS, BORN)
    added = await rows.add_model(MODEL, BORN)
    assert added == {
        **MODEL,
        "targets": [TARGET],
        "created_at": SHOWN["created_at"],
        "updated_at": SHOWN["created_at"],
    }
    assert await rows.add_model(MODEL, BORN) is None
    assert await rows.model("team/fast") == added
    changed = await rows.change_model("team/fast", {"upstream_id": "gpt-6"}, LATER)
    assert changed is not None
    assert (changed["upstream_id"], changed["enabled"]) == ("gpt-6", True)
    registry = await rows.registry()
    assert [p.id for p in registry.providers] == ["acme"]
    assert registry.aliases == (
        Alias(alias="team/fast", provider_id="acme", upstream_id="gpt-6"),
    )
    assert await rows.change_model("none", {"enabled": False}, LATER) is None


async def test_a_provider_with_aliases_stays(rows: RegistryRows) -> None:
    await rows.add_provider(FIELDS, BORN)
    await rows.add_model(MODEL, BORN)
    assert not await rows.delete_provider("acme")
    assert await rows.delete_model("team/fast")
    assert not await rows.delete_model("team/fast")
    assert await rows.delete_provider("acme")
    assert not await rows.delete_provider("acme")
    assert await rows.models() == await rows.providers() == []


async def test_targets_of_an_alias_are_kept(rows: RegistryRows) -> None:
    for id_ in ("acme", "beta"):
        await rows.add_provider({**FIELDS, "id": id_}, BORN)
    added = await rows.add_model({**MODEL, "targets": [TARGET, SECOND]}, BORN)
    assert added is not None
    assert added["targets"] == [TARGET, SECOND]
    assert await rows.model("team/fast") == added
    (alias,) = (await rows.registry()).aliases
    assert [each.model_dump() for each in alias.targets] == [TARGET, SECOND]
    assert not await rows.delete_provider("beta")
    changed = await rows.change_model("team/fast", {"targets": [TARGET]}, LATER)
    assert changed is not None
    assert changed["targets"] == [TARGET]
    assert await rows.delete_provider("beta")
    changed = await rows.change_model("team/fast", {"targets": None}, LATER)
    assert changed is not None
    assert changed["targets"] == [TARGET]
