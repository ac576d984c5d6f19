"""What is stored of events, the same on SQLite and on Postgres."""

import asyncio
from typing import Any

import msgspec
import pytest

from libs.common.contracts.events import Outcome, StreamedEvent
from libs.common.store.factory import open_store
from libs.common.store.interface import HistoryQuery, Unstorable
from libs.common.store.store import Store
from tests.support.databases.sql import fetch
from tests.support.databases.stored import BATCH, session_rows, snapshot
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    request_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio


class TestWriting:
    async def test_a_batch_is_stored_as_it_came(self, store: Store) -> None:
        assert await store.write(BATCH) == 4
        row = await store.request("req-1")
        assert row is not None
        (decision,) = row.pop("decisions")
        expected = msgspec.to_builtins(
            request_event(
                session_id="s",
                session_name="work",
                total_tokens=7,
                resource_id="openai-1",
            )
        )
        expected.pop("minted")
        expected.pop("created_at_ms")
        expected.pop("completed_at_ms")
        assert row == {
            **expected,
            "created_at": "2023-11-14T22:13:20.123Z",
            "completed_at": "2023-11-14T22:13:21.023Z",
        }
        assert decision["degraded"] is False
        assert decision["cause"] == "cooling_down"
        assert decision["waited_ms"] == 70
        assert decision["candidates"] == [
            msgspec.to_builtins(c) for c in decision_event().candidates
        ]

    async def test_a_replay_changes_nothing(self, url: str, store: Store) -> None:
        await store.write(BATCH)
        before = snapshot(url)
        assert await store.write(BATCH) == 0
        assert await store.write(BATCH * 2) == 0
        assert await store.write(tuple(reversed(BATCH))) == 0
        assert snapshot(url) == before

    async def test_of_a_batch_that_is_stored_in_part_the_rest_is_new(
        self, url: str, store: Store
    ) -> None:
        conversation = {"resource_id": "one", "minted": ("conv_1",), "session_id": "s"}
        first = stored_request("a", **conversation)
        # The same id, reported by another request of the same millisecond.
        second = stored_request("b", **conversation, total_tokens=5)
        assert await store.write([first]) == 1
        assert await store.write([first, second, streamed(decision_event("b"))]) == 2
        assert fetch(url, "SELECT id FROM requests ORDER BY 1") == [("a",), ("b",)]
        assert fetch(url, "SELECT request_id FROM minted_ids") == [("a",)]
        assert session_rows(url) == [("s", None, 2, 5, "one")]
        assert (await store.counts()).requests == 2

    async def test_text_of_any_kind_comes_back_as_it_was(self, store: Store) -> None:
        odd = 'tab\t, line\n, back\\slash, "quotes", {braces}, \\N, \u2028 and 🦜'
        await store.write([stored_request("a", error_message=odd, session_name=odd)])
        row = await store.request("a")
        assert row is not None
        assert (row["error_message"], row["session_name"]) == (odd, odd)

    async def test_a_request_has_its_decisions_in_order(self, store: Store) -> None:
        await store.write([
            streamed(decision_event("r", attempt=2), "d2"),
            streamed(decision_event("r", attempt=1), "d9"),
            streamed(decision_event("other"), "d0"),
            stored_request("r"),
        ])  # fmt: skip
        row = await store.request("r")
        assert row is not None
        assert [d["id"] for d in row["decisions"]] == ["d9", "d2"]

    async def test_nothing_is_stored_of_no_events(self, store: Store) -> None:
        assert await store.write([]) == 0

    async def test_writers_with_the_same_batch_store_it_once(
        self, url: str, store: Store
    ) -> None:
        other = open_store(url)
        batch = [stored_request(f"r{n}", session_id=f"s{n % 5}") for n in range(200)]
        backwards = list(reversed(batch))
        written = await asyncio.gather(
            *(s.write(b) for s in (store, other) for b in (batch, backwards))
        )
        assert sum(written) == 200
        assert [row[2] for row in session_rows(url)] == [40] * 5
        assert (await other.counts()).requests == 200
        await other.close()

    async def test_all_or_nothing(self, url: str, store: Store) -> None:
        before = snapshot(url)
        bad = streamed(request_event("bad", method=None), "bad")  # fmt: skip
        with pytest.raises(Unstorable, match="method"):
            await store.write([*BATCH, bad])
        assert snapshot(url) == before

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param({"input_tokens": 2**70}, id="beyond bigint"),
            pytest.param({"model": "\ud800"}, id="lone surrogate"),
        ],
    )
    async def test_data_that_fits_nowhere_is_refused(
        self, store: Store, bad: dict[str, Any]
    ) -> None:
        event = request_event(**bad)
        poisoned = StreamedEvent(
            entry_id="1-0", id="req-1", kind="request", event=event
        )
        with pytest.raises((Unstorable, ValueError)):
            await store.write([poisoned])


class TestInterrupted:
    LOST = stored_request(
        session_id="s", outcome=Outcome.INTERRUPTED, resource_id="one", total_tokens=3
    )
    REAL = stored_request(
        session_id="s", outcome=Outcome.FAILED, resource_id="two", total_tokens=10
    )

    @pytest.mark.parametrize(
        "batches",
        [
            pytest.param([[LOST], [REAL]], id="replaced later"),
            pytest.param([[REAL], [LOST]], id="too late"),
            pytest.param([[LOST, REAL]], id="same batch"),
            pytest.param([[REAL, LOST]], id="same batch, other order"),
            pytest.param([[LOST], [LOST], [REAL], [LOST], [REAL]], id="all again"),
        ],
    )
    async def test_the_real_outcome_stays(
        self, url: str, store: Store, batches: list[list[StreamedEvent]]
    ) -> None:
        for batch in batches:
            await store.write(batch)
        assert fetch(url, "SELECT id, outcome FROM requests") == [("req-1", "failed")]
        assert session_rows(url) == [("s", None, 1, 10, "two")]
        assert (await store.counts()).requests == 1


class TestSessions:
    async def test_counts_and_names(self, url: str, store: Store) -> None:
        await store.write([
            stored_request("b", session_id="s", session_name="new", total_tokens=2,
                           created_at_ms=T0_MS + 5, resource_id="two"),
        ])  # fmt: skip
        await store.write([
            stored_request("a", session_id="s", session_name="old", total_tokens=1,
                           created_at_ms=T0_MS, resource_id="one"),
            stored_request("c", session_id="other"),
            stored_request("d"),
        ])  # fmt: skip
        assert session_rows(url) == [
            ("other", None, 1, 0, None),
            ("s", "new", 2, 3, "two"),
        ]
        ((first, last),) = [
            (r["first_seen_at"], r["last_seen_at"])
            for r in (await store.history(HistoryQuery("sessions"))).rows
            if r["id"] == "s"
        ]
        assert (first, last) == ("2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20.128Z")

    async def test_a_newer_request_names_the_session(
        self, url: str, store: Store
    ) -> None:
        await store.write([stored_request("a", session_id="s", session_name="old")])
        await store.write([
            stored_request("b", session_id="s", created_at_ms=T0_MS + 1,
                           session_name="new", resource_id="two"),
            stored_request("c", session_id="s", created_at_ms=T0_MS + 2),
        ])  # fmt: skip
        assert session_rows(url) == [("s", "new", 3, 0, "two")]
