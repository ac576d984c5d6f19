"""`GET /admin/ledger`: every gateway's counts and their sum. test_audit.py tests when
they are balanced."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.routing.types import Reported
from libs.common.store.interface import Book
from services.router.admin.ledger import Auditor, LedgerView, Reading, summed
from tests.support.values.admin import client
from tests.support.values.telemetry import T0_MS, gateway_event

BOOK = Book("gw-1", None, None, 0, 0, 0, "running", 100, 1)


def report(accepted: int, ended: int, held: int, at_ms: int = T0_MS) -> Reported:
    books = gateway_event("gw-1", accepted=accepted, ended=ended, held=held)
    return Reported(at_ms, 500, books)


@dataclass
class World:
    """Redis and SQL, each of which can be unreachable."""

    redis: Exception | None = None
    sql: Exception | None = None
    leases: int = 2
    reported: dict[str, Reported] = field(
        default_factory=lambda: {"gw-1": report(106, 104, 4)}
    )
    kept: tuple[Book, ...] = (BOOK,)
    order: list[str] = field(default_factory=list)

    async def depth(self) -> int:
        self.order.append("depth")
        if self.redis:
            raise self.redis
        return 9

    async def reports(self) -> dict[str, Reported]:
        self.order.append("reports")
        return self.reported

    async def in_flight(self) -> int:
        return self.leases

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        self.order.append(f"books of {', '.join(ids)}")
        if self.sql:
            raise self.sql
        return self.kept

    @property
    def auditor(self) -> Auditor:
        return Auditor(self, self, self, silent_ms=5_000)

    def shown(self) -> Any:
        routes = {"/admin/ledger": LedgerView(self.auditor)}
        result = client(routes).simulate_get("/admin/ledger")
        assert result.headers["cache-control"] == "no-store"
        return result.json


def test_the_whole_ledger() -> None:
    told = World().shown()
    assert told.pop("timestamp").endswith("Z")
    figures = {
        "accepted": 106, "stored": 100, "pending": 3, "in_flight": 2,
        "dead_lettered": 1,
    }  # fmt: skip
    assert told == {
        **figures,
        "balanced": True,
        "problems": [],
        "unverified": [],
        "queue_depth": 9,
        "gateways": [
            {
                "id": "gw-1",
                "shard": "rpx",
                "state": "running",
                **figures,
                "held": 4,
                "seen_at": "2023-11-14T22:13:20.123Z",
            }
        ],
    }


def test_a_lease_may_be_younger_than_any_report() -> None:
    told = World(leases=5).shown()
    assert (told["in_flight"], told["accepted"]) == (5, 109)


def test_gateways_are_listed_by_their_state() -> None:
    rest = replace(BOOK, id="*", state="closed")
    told = World(kept=(BOOK, rest)).shown()
    assert [gateway["id"] for gateway in told["gateways"]] == ["*", "gw-1"]
    assert told["gateways"][0]["seen_at"] is None


@pytest.mark.parametrize("error", [RedisAway(), NoCatalogue(), TimeoutError()])
def test_without_redis_only_what_is_stored_is_known(error: Exception) -> None:
    told = World(redis=error).shown()
    unknown = ("accepted", "pending", "in_flight", "balanced", "queue_depth")
    assert [told[name] for name in unknown] == [None] * 5
    assert (told["stored"], told["dead_lettered"]) == (100, 1)


@pytest.mark.parametrize("error", [StoreAway(), TimeoutError()])
def test_without_sql_only_what_is_under_way_is_known(error: Exception) -> None:
    told = World(sql=error).shown()
    unknown = ("accepted", "stored", "pending", "dead_lettered", "balanced")
    assert [told[name] for name in unknown] == [None] * 5
    assert (told["in_flight"], told["queue_depth"]) == (2, 9)


def test_sql_is_asked_last_and_of_those_that_report() -> None:
    world = World()
    world.shown()
    assert world.order == ["depth", "reports", "books of gw-1"]


def test_a_request_that_is_missing_is_told() -> None:
    told = World(reported={"gw-1": report(106, 104, 2)}).shown()
    assert told["balanced"] is False
    assert told["problems"] == ["gw-1: 1 stored requests are gone"]


@pytest.mark.asyncio
async def test_more_in_sql_than_was_accepted_is_told_by_a_later_report() -> None:
    world = World(kept=(replace(BOOK, stored=106),))
    auditor = world.auditor
    for age in range(3):
        world.reported = {"gw-1": report(106, 106, 6, T0_MS + age * 1000)}
        reading = await auditor.read()
    assert reading.finding is not None
    assert reading.finding.problems == ("gw-1: 1 requests more than it accepted",)


def test_nothing_was_read() -> None:
    nothing = summed(Reading())
    assert set(nothing.model_dump().values()) == {None, ()}
