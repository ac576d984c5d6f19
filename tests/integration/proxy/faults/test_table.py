"""Every row of the table of faults, with another key and without. The last test
compares the table with docs/faults.md."""

import re
from pathlib import Path

import pytest

from tests.integration.proxy.faults.scene import Setup, Told, refused_by
from tests.integration.proxy.faults.table import ROWS, Mark, Row, every_row

# One gateway serves the module. Each test has an empty Redis and its own upstream,
# because a kept connection of another test would change what a reset means.
pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Two rows wait for it; no other request of a busy machine takes that long.
GATEWAY = {"PROXY_REQUEST_TIMEOUT_SECONDS": "5"}

DOCS = Path(__file__).resolve().parents[4] / "docs" / "faults.md"


@every_row
async def test_with_another_key(setup: Setup, row: Row) -> None:
    await setup.keys(2, closed=int(row.fault is None))
    setup.fault(row.fault or {})
    told = await setup.ask(stream=row.stream, names_model=row.names_model)
    assert told.client == row.saved
    _check_ledger(told)
    usual = "weighted_least_connections"
    if row.retried:
        assert told.chosen == ["openai-1", "openai-2"]
        assert told.reasons == [usual, usual]
        assert told.causes == [None, row.cause]
        assert refused_by(told, "openai-1").startswith(row.mark.refused)
        assert (await setup.state(1)).health == "healthy"
    else:
        assert (told.chosen, told.reasons) == (["openai-1"], [usual])
        assert (await setup.state(1)).health == "unknown"
    await _check_mark(setup, row.mark)


@every_row
async def test_with_one_key(setup: Setup, row: Row) -> None:
    await setup.keys(1, closed=int(row.fault is None))
    setup.fault(row.fault or {})
    told = await setup.ask(stream=row.stream, names_model=row.names_model)
    assert told.client == row.alone
    _check_ledger(told)
    if row.retried:
        assert told.chosen == ["openai-1", None]
        assert told.reasons == ["weighted_least_connections", "no_capacity"]
        assert told.causes == [None, row.cause]
        assert refused_by(told, "openai-1").startswith(row.mark.refused)
    else:
        assert told.chosen == ["openai-1"]
    await _check_mark(setup, row.mark)


def _check_ledger(told: Told) -> None:
    event, client = told.event, told.client
    served = client.status == 200 and client.end == "whole"
    assert event["outcome"] == ("completed" if served else "failed")
    assert event["status_code"] == client.status
    assert event["attempts"] == client.attempts
    if client.code:
        assert event["error_code"] == client.code
    # The headers of a failed attempt are not in the answer of a successful one.
    assert not (served and event.get("error_code"))


async def _check_mark(setup: Setup, mark: Mark) -> None:
    state, events = await setup.state(), await setup.health_events()
    assert state.health == mark.health
    assert state.errors == (1 if mark.cause else 0)
    assert (state.last_error or "").startswith(mark.cause or "")
    assert bool(state.last_error) == bool(mark.cause)
    assert bool(state.cooldown_until) == (mark.pause_s is not None)
    assert state.paused_models == ((mark.model,) if mark.model else ())
    assert state.in_flight == 0
    if mark.health == "unknown":
        assert events == []
        return
    (event,) = events
    assert (event["after"], event.get("model")) == (mark.health, mark.model)
    assert event["cause"].startswith(mark.cause)
    until_ms = event["cooldown_until_ms"]
    pause_s = until_ms and (until_ms - event["created_at_ms"]) / 1000
    assert pause_s == mark.pause_s


async def test_the_document_has_the_rows_of_this_table() -> None:
    lines = re.findall(r"^\| `([^`]+)` \|(.*)", DOCS.read_text(), re.MULTILINE)
    documented = [(id_, told.split(" | ")[3]) for id_, told in lines]
    assert [id_ for id_, _ in documented] == [row.id for row in ROWS]
    causes = [re.findall("`([a-z_]+)`", decisions) for _, decisions in documented]
    assert causes == [[row.cause] if row.cause else [] for row in ROWS]
