"""What a store has, and events to store."""

import pytest

from libs.common.store.factory import open_store
from libs.common.store.postgres import store as postgres
from libs.common.store.sqlite import schema as sqlite
from tests.support.databases.sql import fetch, table_rows
from tests.support.values.telemetry import (
    decision_event,
    health_event,
    registry_event,
    stored_request,
    streamed,
)


async def migrate_to(version: int, url: str, patch: pytest.MonkeyPatch) -> None:
    """Create a database with the schema of an earlier version."""
    with patch.context() as earlier:
        earlier.setattr(postgres, "MIGRATIONS", postgres.MIGRATIONS[:version])
        earlier.setattr(sqlite, "MIGRATIONS", sqlite.MIGRATIONS[:version])
        store = open_store(url)
        await store.migrate()
        await store.close()


def snapshot(url: str) -> list[object]:
    """Everything that is stored."""
    tables = (
        "sessions", "requests", "decisions", "events", "minted_ids", "totals",
        "gateways", "rollups",
    )  # fmt: skip
    return [table_rows(url, table) for table in tables]


def session_rows(url: str) -> list[tuple[object, ...]]:
    return fetch(
        url,
        "SELECT id, name, requests, total_tokens, last_resource_id "
        "FROM sessions ORDER BY id",
    )


BATCH = (
    streamed(decision_event(session_id="s", cause="cooling_down", waited_ms=70)),
    stored_request(session_id="s", session_name="work", total_tokens=7,
                   resource_id="openai-1", minted=("resp_1", "msg_1", "resp_1")),
    streamed(health_event()),
    streamed(registry_event()),
)  # fmt: skip
