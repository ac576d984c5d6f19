"""A batch that is all new, as plain rows in the order of the columns."""

from typing import Any

import pytest

from libs.common.contracts.events import RequestEvent
from libs.common.store.bulk import (
    APART,
    OF_EVENTS,
    QUARTER_MS,
    Form,
    deltas,
    spend,
    tables,
)
from libs.common.store.dedupe import dedupe
from libs.common.store.postgres.calls import TYPES
from libs.common.store.rollups import Rollups
from libs.common.store.rows import iso_ms
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    health_event,
    stored_request,
    streamed,
)

FORM = Form(at=lambda ms: f"at {ms}", json=lambda text: f"json {text.decode()}")
AT = f"at {T0_MS}"


def rows(*events: Any) -> dict[str, list[tuple[Any, ...]]]:
    return {name: list(rows) for name, rows in tables(dedupe(events, {}), FORM)}


def test_nothing_of_nothing() -> None:
    assert rows() == {}


def test_each_event_has_one_row() -> None:
    """Those that have no table of their own are stored as they came."""
    health = streamed(health_event())
    gateway, decision = streamed(gateway_event(), "g1"), streamed(decision_event())
    found = rows(health, gateway, decision, stored_request())
    assert {name: len(rows) for name, rows in found.items()} == {
        "events": 2, "requests": 1, "decisions": 1
    }  # fmt: skip
    assert found.keys() == OF_EVENTS
    assert found["events"][0] == (
        "health-1", "health", AT, f"json {health.json.decode()}"
    )  # fmt: skip


def test_a_request_has_the_fields_of_its_contract_in_their_order() -> None:
    event = stored_request("r", model="gpt-5", minted=("resp_1",))
    (row,) = rows(event)["requests"]
    assert row[:3] == ("r", AT, f"at {T0_MS + 900}")
    fields = [name for name in RequestEvent.__struct_fields__ if name not in APART]
    assert len(row) == 3 + len(fields) == len(TYPES["requests"])
    assert row[3 + fields.index("model")] == "gpt-5"


def test_a_decision_has_its_candidates_as_json() -> None:
    decided = decision_event(cause="rate_limited", waited_ms=70)
    (row,) = rows(streamed(decided, "d"))["decisions"]
    assert row[:4] == ("d", "req-1", 1, AT)
    assert str(row[8]).startswith('json [{"resource":"openai-1"')
    assert row[9:] == (False, "rate_limited", 70)
    assert len(row) == len(TYPES["decisions"])


def test_ids_are_minted_by_the_account_that_served() -> None:
    event = stored_request("r", resource_id="one", account_id="a", minted=("x", "y"))
    assert rows(event)["minted_ids"] == [
        ("x", AT, "r", "one", "a", "", False),
        ("y", AT, "r", "one", "a", "", False),
    ]


def test_without_an_account_the_resource_is_one_of_its_own() -> None:
    event = stored_request("r", resource_id="one", minted=("x",))
    assert rows(event)["minted_ids"] == [("x", AT, "r", "one", "one", "", False)]


@pytest.mark.parametrize(
    ("given", "whose"),
    [
        ({"proxy_key_id": "k"}, ("key:k", False)),
        ({"proxy_key_id": "k", "team_id": "red"}, ("team:red", False)),
        ({"method": "GET"}, ("", True)),  # a list, of ids that were there before
    ],
)
def test_minted_ids_have_a_tenant(
    given: dict[str, str], whose: tuple[Any, ...]
) -> None:
    event = stored_request("r", resource_id="one", minted=("x",), **given)
    (row,) = rows(event)["minted_ids"]
    assert row[5:] == whose


def test_ids_that_nobody_served_are_nobodys() -> None:
    assert "minted_ids" not in rows(stored_request("r", minted=("x",)))


def test_of_two_that_tell_an_id_in_one_moment_the_first_counts() -> None:
    minted = {"resource_id": "one", "minted": ("x", "x")}
    first, second = stored_request("a", **minted), stored_request("b", **minted)
    later = stored_request("c", created_at_ms=T0_MS + 1, **minted)
    found = rows(first, second, later)["minted_ids"]
    assert [(row[0], row[2]) for row in found] == [("x", "a"), ("x", "c")]


def test_the_books_of_a_gateway_name_its_shard() -> None:
    rollups = Rollups()
    rollups.shard = "b"
    changes = dedupe([streamed(gateway_event(), "g1")], {})
    (found,) = deltas(changes, rollups)
    assert dict(zip(found.columns, found.rows[0], strict=True))["shard"] == "b"


def test_what_was_spent_is_told_by_key_team_and_quarter_of_an_hour() -> None:
    quarter = T0_MS - T0_MS % QUARTER_MS
    both: dict[str, Any] = {"proxy_key_id": "k", "team_id": "t"}
    events = [
        stored_request("r1", **both, total_tokens=3, cost_nanos=40),
        stored_request("r2", proxy_key_id="k", total_tokens=4),
        stored_request("odd", **both, total_tokens=-9, cost_nanos=-9),
        stored_request("unknown", **both),
        stored_request("nobody", total_tokens=5),
        stored_request(
            "later", created_at_ms=quarter + QUARTER_MS, team_id="t", cost_nanos=1
        ),
    ]
    assert spend(dedupe(events, {}).requests).rows == [
        ("key:k", iso_ms(quarter), 7, 40),
        ("team:t", iso_ms(quarter), 3, 40),
        ("team:t", iso_ms(quarter + QUARTER_MS), 0, 1),
    ]
