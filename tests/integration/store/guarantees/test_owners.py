"""Owners of ids, dead letters and captured bodies: the same on SQLite and Postgres."""

from datetime import date
from typing import Any

import pytest

from libs.common.contracts.events import Outcome
from libs.common.contracts.payloads import Note, Payload
from libs.common.routing.types import Owner
from libs.common.store.interface import DeadLetter, HistoryQuery
from libs.common.store.store import Store
from tests.support.databases.sql import execute, fetch, table_rows
from tests.support.values.telemetry import T0_MS, stored_request

pytestmark = pytest.mark.asyncio


UNSTORABLE = ["a\0b", "\ud800", "\0", "resp_\udfff"]


class TestOwners:
    MINTED = stored_request(
        resource_id="one", account_id="acct-a", minted=("resp_1", "msg_1", "conv_1")
    )

    async def test_are_found_by_every_id_an_answer_minted(self, store: Store) -> None:
        await store.write([self.MINTED])
        owner = Owner("one", "acct-a")
        assert await store.owners(["conv_1", "resp_1", "resp_1", "resp_2"]) == {
            "resp_1": owner, "conv_1": owner,
        }  # fmt: skip
        assert await store.owners([]) == {}

    async def test_the_newest_answer_tells(self, url: str, store: Store) -> None:
        later = stored_request("req-2", created_at_ms=T0_MS + 1, resource_id="two",
                               account_id="acct-b", minted=("conv_1",))  # fmt: skip
        earlier = stored_request("req-0", created_at_ms=T0_MS - 1, resource_id="zero",
                                 account_id="acct-z", minted=("conv_1",))  # fmt: skip
        for batch in ([later, self.MINTED], [earlier]):
            await store.write(batch)
        assert await store.owners(["conv_1", "msg_1"]) == {
            "conv_1": Owner("two", "acct-b"),
            "msg_1": Owner("one", "acct-a"),
        }
        assert len(fetch(url, "SELECT * FROM minted_ids")) == 5

    async def test_an_id_stays_with_the_tenant_that_minted_it(
        self, store: Store
    ) -> None:
        """A later answer may repeat an id that its client chose."""
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n * 86_400_000,
                           resource_id=f"openai-{n}", minted=("msg_1",), **whose)
            for n, whose in enumerate([
                {"proxy_key_id": "key_a", "team_id": "blue"},
                {"proxy_key_id": "key_b", "method": "GET"},
                {"path": "/v1/conversations/conv_1/items"},
            ])
        ])  # fmt: skip
        owner = Owner("openai-2", "openai-2", "team:blue")
        assert await store.owners(["msg_1"]) == {"msg_1": owner}

    async def test_ids_from_before_tenants_are_their_requests(
        self, url: str, store: Store
    ) -> None:
        await store.write([
            stored_request("r1", resource_id="one", minted=("resp_1",),
                           proxy_key_id="key_a"),
            stored_request("r2", resource_id="one", minted=("resp_2",)),
        ])  # fmt: skip
        execute(url, "UPDATE minted_ids SET tenant = NULL, repeated = NULL")
        assert await store.owners(["resp_1", "resp_2"]) == {
            "resp_1": Owner("one", "one", "key:key_a"),
            "resp_2": Owner("one", "one"),
        }

    async def test_a_session_is_looked_for_within_its_tenant(
        self, store: Store
    ) -> None:
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n, session_id="s",
                           resource_id=f"openai-{n}", **whose)
            for n, whose in enumerate(
                [{"proxy_key_id": "key_a"}, {"proxy_key_id": "key_b"}, {}]
            )
        ])  # fmt: skip
        for tenant, resource in (("key:key_a", "openai-0"), ("", "openai-2")):
            owner = Owner(resource, resource, tenant)
            assert await store.session_owner("s", tenant) == owner
        assert await store.session_owner("s", "key:key_c") is None

    async def test_are_found_in_every_days_partition(self, store: Store) -> None:
        await store.make_partitions(date(2023, 11, 14))
        day_ms = 86_400_000
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n * day_ms,
                           resource_id=f"openai-{n}", minted=("conv_1", f"resp_{n}"))
            for n in (3, 0, 1, 2)
        ])  # fmt: skip
        found = await store.owners(["conv_1", "resp_0", "resp_2"])
        assert {id_: owner.resource_id for id_, owner in found.items()} == {
            "conv_1": "openai-3", "resp_0": "openai-0", "resp_2": "openai-2",
        }  # fmt: skip

    async def test_a_resource_without_an_account_is_one_of_its_own(
        self, store: Store
    ) -> None:
        await store.write([
            stored_request(session_id="s", resource_id="one", minted=("resp_1",))
        ])  # fmt: skip
        assert await store.owners(["resp_1"]) == {"resp_1": Owner("one", "one")}
        assert await store.session_owner("s") == Owner("one", "one")

    async def test_what_nobody_served_is_nobodys(self, url: str, store: Store) -> None:
        await store.write([stored_request(session_id="s", minted=("resp_1",))])
        assert fetch(url, "SELECT * FROM minted_ids") == []
        assert await store.owners(["resp_1"]) == {}
        assert await store.session_owner("s") is None

    async def test_a_real_outcome_brings_its_ids(self, store: Store) -> None:
        lost = stored_request(outcome=Outcome.INTERRUPTED, resource_id="one")
        await store.write([lost])
        await store.write([self.MINTED, lost])
        assert await store.owners(["resp_1"]) == {"resp_1": Owner("one", "acct-a")}

    @pytest.mark.parametrize("odd", UNSTORABLE, ids=ascii)
    async def test_what_no_database_holds_is_unknown(
        self, store: Store, odd: str
    ) -> None:
        await store.write([self.MINTED])
        assert await store.owners([odd]) == {}
        assert list(await store.owners([odd, "resp_1"])) == ["resp_1"]
        assert await store.session_owner(odd) is None

    async def test_a_sessions_owner_served_its_newest_completed_request(
        self, store: Store
    ) -> None:
        served: dict[int, dict[str, Any]] = {
            1: {"resource_id": "one"},
            2: {"resource_id": "two", "account_id": "acct-b"},
            3: {"resource_id": "three", "outcome": Outcome.FAILED},
            4: {"resource_id": "four", "outcome": Outcome.INTERRUPTED},
            5: {"resource_id": None},
        }
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n, session_id="s", **given)
            for n, given in served.items()
        ])  # fmt: skip
        assert await store.session_owner("s") == Owner("two", "acct-b")
        assert await store.session_owner("t") is None


class TestDeadLetters:
    LETTER = DeadLetter("x", "1-0", "r", "request", "no JSON", "{", T0_MS)

    async def test_are_parked_once(self, url: str, store: Store) -> None:
        again = DeadLetter("x", "2-0", "r", "request", "no JSON", "{", T0_MS)
        assert await store.write_dead_letters([self.LETTER, again]) == 1
        assert await store.write_dead_letters([again]) == 0
        assert await store.write_dead_letters([]) == 0
        assert len(fetch(url, "SELECT * FROM dead_letters")) == 1

    async def test_are_counted(self, store: Store) -> None:
        nameless = DeadLetter("y", "3-0", None, None, "?", "", T0_MS)
        reshaped = DeadLetter("z", "4-0", "r", "request", "?", "", T0_MS)
        await store.write_dead_letters([self.LETTER, nameless, reshaped])
        counts = await store.counts()
        assert (counts.requests, counts.dead_letters, counts.dead_requests) == (0, 3, 1)


def captured(request_id: str = "req-1", **given: Any) -> Payload:
    """Both bodies of a request, the answer's dropped."""
    asked, answered = Note(5, "text/plain", **given), Note(9, dropped="no room")
    body = b"\0\xff packed"
    return Payload(request_id, T0_MS, asked, answered, request_body=body)


class TestPayloads:
    async def test_are_stored_once_and_found_by_their_request(
        self, url: str, store: Store
    ) -> None:
        await store.write([stored_request()])
        assert await store.write_payloads([captured(), captured("other")]) == 4
        assert await store.write_payloads([captured(truncated=True)]) == 0
        # Of a batch that was sent again, and of one that has the same twice.
        assert await store.write_payloads([captured("new"), captured()]) == 2
        assert await store.write_payloads([captured("twice")] * 2) == 2
        row = await store.request("req-1")
        assert row is not None
        asked, answered = sorted(
            await store.payloads(row), key=lambda found: str(found["direction"])
        )
        assert asked == {
            "request_id": "req-1",
            "created_at": "2023-11-14T22:13:20.123Z",
            "direction": "request",
            "content_type": "text/plain",
            "encoding": "zstd",
            "original_bytes": 5,
            "truncated": False,
            "dropped": None,
            "body": b"\0\xff packed",
        }
        assert (answered["body"], answered["dropped"]) == (b"", "no room")
        assert fetch(url, "SELECT count(*) FROM events WHERE kind = 'payload'") == [
            (0,)
        ]

    async def test_go_with_their_day(self, url: str, store: Store) -> None:
        await store.write_payloads([captured()])
        await store.make_partitions(date(2023, 11, 14))
        assert len(table_rows(url, "payloads")) == 2
        assert await store.write_payloads([captured()]) == 0
        await store.drop_before(date(2023, 11, 15))
        assert table_rows(url, "payloads") == []

    async def test_histories_hold_no_bodies(self, store: Store) -> None:
        await store.write([stored_request()])
        await store.write_payloads([captured()])
        (row,) = (await store.history(HistoryQuery("requests"))).rows
        assert not any(isinstance(value, bytes) for value in row.values())
