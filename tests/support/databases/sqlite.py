"""What tests of SQLite write to a file, and read from it."""

import sqlite3
from pathlib import Path
from typing import Any

from tests.support.values.telemetry import (
    decision_event,
    gateway_event,
    health_event,
    stored_request,
    streamed,
)

BATCH = (
    streamed(decision_event("req-1", session_id="s")),
    stored_request(session_id="s", total_tokens=7, resource_id="one", account_id="a",
                   minted=("resp_1",)),
    streamed(health_event()),
    streamed(gateway_event("gw")),
)  # fmt: skip


def fetched(path: Path, query: str) -> list[Any]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found
