"""Model aliases with several targets: two gateways, two providers with a simulated
upstream each, and one that nobody listens for."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect

from libs.common.redis.shared_connection import connect as connect_redis
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator
from tests.support.worlds.alias_targets import (
    MODELS,
    ONE,
    OURS,
    PLAN,
    SOON_S,
    TWO,
    World,
    model,
    provider,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    empty(valkey_server)
    folder: Path = tmp_path_factory.mktemp("fleet")
    redis = connect_redis(valkey_server)
    async with (
        Simulator(OURS) as ours,
        Simulator(ONE) as one,
        Simulator(TWO) as two,
        running_fleet(PLAN, ours, valkey_server, folder) as fleet,
    ):
        made = World(fleet, one, two, redis)
        await made.register()
        yield made
        await made.http.aclose()
    await redis.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def world(standing: World) -> AsyncIterator[World]:
    """After each test both keys of `one` serve a request, so that no faults in a row of
    several tests start a cooldown."""
    yield standing
    standing.one.state.faults.clear()
    alias = await standing.alias(("one", 0, 1))
    served: set[str] = set()

    async def both() -> bool:
        served.add((await standing.ask(alias)).headers["x-proxy-resource-id"])
        return len(served) == len(ONE)

    await eventually(both, SOON_S)


async def test_requests_are_spread_by_weight_and_sessions_stay(world: World) -> None:
    alias = await world.alias(("one", 0, 3), ("two", 0, 1), ("dead", 1, 1))
    room = asyncio.Semaphore(16)

    async def one(number: int, **more: Any) -> httpx.Response:
        async with room:
            return await world.ask(alias, number % 2, **more)

    answers = await asyncio.gather(*(one(n) for n in range(400)))
    spread = Counter(map(provider, answers))
    # Five standard deviations: 5 * (400 * 3/4 * 1/4) ** 0.5.
    assert abs(spread["one"] - 300) < 43
    assert spread["one"] + spread["two"] == 400
    assert {(provider(a), model(a)) for a in answers} == {
        ("one", MODELS["one"]),
        ("two", MODELS["two"]),
    }
    # Sessions are spread, too, and each has one target at both gateways.
    homes = []
    for session in range(24):
        more = {"prompt_cache_key": f"spread-{session}"}
        turns = await asyncio.gather(*(one(n, **more) for n in range(4)))
        (home,) = set(map(provider, turns))
        homes.append(home)
    assert set(homes) == {"one", "two"}


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        pytest.param({"status": 429}, "rate_limited", id="429"),
        pytest.param({"status": 500}, "server_error", id="500"),
        pytest.param({"reset": True}, None, id="reset"),
    ],
)
async def test_the_next_priority_serves_when_all_keys_fail(
    world: World, fault: dict[str, Any], cause: str | None
) -> None:
    alias = await world.alias(("one", 0, 1), ("two", 1, 1))
    assert provider(await world.ask(alias)) == "one"
    # A reset of a kept connection is sent once more, on a new one.
    world.fails(world.one, 4 if "reset" in fault else 2, **fault)
    answer = await world.ask(alias)
    assert (provider(answer), model(answer)) == ("two", MODELS["two"])
    rows = await world.decisions(answer)
    assert answer.headers["x-proxy-attempts"] == str(len(rows))
    assert [pool for _, pool, *_ in rows] == ["@one"] * (len(rows) - 1) + ["@two"]
    if cause is not None:
        assert len(rows) == 3
        assert [row[4] for row in rows] == [None, cause, cause]
        assert {row[2] for row in rows[:2]} == {"one-1", "one-2"}
    if cause == "rate_limited":
        # The model is in a cooldown on both keys: nothing is sent there.
        answer = await world.ask(alias)
        assert (provider(answer), answer.headers["x-proxy-attempts"]) == ("two", "1")
        assert await world.decisions(answer) == [
            (1, "@one", None, "no_capacity", None),
            (1, "@two", "two", "weighted_least_connections", "target_unavailable"),
        ]


async def test_a_provider_that_nobody_reaches(world: World) -> None:
    alias = await world.alias(("dead", 0, 1), ("two", 1, 1))
    answers = [await world.ask(alias) for _ in range(5)]
    assert set(map(provider, answers)) == {"two"}
    first, *_, last = [await world.decisions(answer) for answer in answers]
    assert first == [
        (1, "@dead", "dead", "weighted_least_connections", None),
        (2, "@two", "two", "weighted_least_connections", "connect_error"),
    ]
    # After three faults it cools down.
    assert last == [
        (1, "@dead", None, "no_capacity", None),
        (1, "@two", "two", "weighted_least_connections", "target_unavailable"),
    ]
    row = await world.admin(
        "GET", f"requests/{answers[-1].headers['x-proxy-request-id']}"
    )
    assert (row["model"], row["pool_id"], row["attempts"]) == (alias, "@two", 1)
    assert str(row["upstream_model"]).startswith(MODELS["two"])


async def test_state_stays_where_it_was_minted(world: World) -> None:
    alias = await world.alias(("one", 0, 1), ("two", 1, 1))
    world.fails(world.one, 2, status=500)
    session: dict[str, Any] = {"prompt_cache_key": f"state-{alias}"}
    answer = await world.ask(alias, **session)
    assert provider(answer) == "two"
    # The first target works again. The response is known at its own only, whichever
    # gateway is asked, and with or without the session.
    before = {"previous_response_id": answer.json()["id"]}
    for gateway, more in ((1, before), (0, before | session), (1, session)):
        answer = await world.ask(alias, gateway, **more)
        assert (provider(answer), model(answer)) == ("two", MODELS["two"])
        assert len(await world.decisions(answer)) == 1
    assert provider(await world.ask(alias)) == "one"
    # After Redis forgot it, SQL knows.
    answer = await world.ask(alias, **before)
    await world.decisions(answer)
    forgotten = [key async for key in world.redis.scan_iter("{rpx}:bound:*")]
    await world.redis.delete(*forgotten)
    answer = await world.ask(alias, 1, previous_response_id=answer.json()["id"])
    assert provider(answer) == "two"


async def test_targets_that_a_key_may_not_use_are_left_out(world: World) -> None:
    alias = await world.alias(("one", 0, 1), ("two", 1, 1))
    minted = await world.admin("POST", "keys", 201, name="k", pools=["dear"])

    async def known() -> bool:
        answer = await world.ask(alias, key=minted["secret"])
        return answer.status_code == 200

    await eventually(known, SOON_S)
    assert provider(await world.ask(alias, key=minted["secret"])) == "two"
    other = await world.admin("POST", "keys", 201, name="k", pools=["openai-default"])

    async def refused() -> bool:
        answer = await world.ask(alias, key=other["secret"])
        return bool(
            answer.status_code == 403
            and answer.json()["error"]["code"] == "model_not_allowed"
        )

    await eventually(refused, SOON_S)


async def test_explain_shows_the_targets_in_order(world: World) -> None:
    alias = await world.alias(("dead", 2, 1), ("one", 0, 1), ("two", 1, 5))
    told = await world.admin("POST", "route/explain", body={"model": alias})
    shown = [(t["provider_id"], t["priority"]) for t in told["targets"]]
    assert shown == [("one", 0), ("two", 1), ("dead", 2)]
    assert told["targets"][1]["weight"] == 5
    assert (told["provider_id"], told["status"]) == ("one", "ok")
    assert {t["status"] for t in told["targets"][:2]} == {"ok"}
    alias = await world.alias(("one", 0, 1), ("two", 1, 1))
    world.fails(world.one, 2, status=429)
    answer = await world.ask(alias)
    body = {"model": alias, "previous_response_id": answer.json()["id"]}

    async def is_known() -> bool:  # the gateway tells Redis a little later
        told = await world.admin("POST", "route/explain", body=body)
        where = told["provider_id"], told["reason"]
        return where == ("two", "response_affinity")

    await eventually(is_known)
    told = await world.admin("POST", "route/explain", body={"model": alias})
    assert (told["provider_id"], told["targets"][0]["reason"]) == ("two", "panic")


class OldAlias(BaseModel):
    """What gateways before this read, ignoring other fields."""

    alias: str
    provider_id: str
    upstream_id: str


async def test_an_older_gateway_reads_the_first_target(world: World) -> None:
    alias = await world.alias(("two", 1, 1), ("one", 0, 1))
    document: Any = await world.redis.get("{rpx}:catalogue")
    aliases = [OldAlias(**each) for each in json.loads(document)["aliases"]]
    (found,) = [each for each in aliases if each.alias == alias]
    assert found.provider_id == "one"
    assert found.upstream_id.startswith(MODELS["one"])
    rows = fetch(
        world.fleet.database,
        f"SELECT provider_id, upstream_id FROM models WHERE alias = '{alias}'",
    )
    assert rows == [(found.provider_id, found.upstream_id)]
    told = await world.admin("DELETE", "providers/two", 409)
    assert told["error"]["code"] == "provider_in_use"


def socket(world: World) -> connect:
    url = world.fleet.gateways[0].url.replace("http", "ws", 1)
    return connect(f"{url}/responses", proxy=None, compression=None)


async def turn(opened: ClientConnection, alias: str, **more: Any) -> dict[str, Any]:
    """Send a request on a socket; returns the frame that ends the response."""
    ask = {"type": "response.create", "model": alias, "input": "hi", **more}
    await opened.send(json.dumps(ask))
    while True:
        frame: dict[str, Any] = json.loads(await opened.recv())
        if frame["type"] in ("response.completed", "error"):
            return frame


def named(frame: dict[str, Any]) -> str:
    assert frame["type"] == "response.completed", frame
    return str(frame["response"]["model"]).rpartition("-v")[0]


async def test_sockets_leave_a_target_that_fails(world: World) -> None:
    alias = await world.alias(("one", 0, 1), ("two", 1, 1))
    async with socket(world) as opened:
        first = await turn(opened, alias)
        assert named(first) == MODELS["one"]
        # Without its keys, its state is lost: the client sends its whole input.
        await world.admin("PATCH", "providers/one", enabled=False)
        try:
            await world.adopted()
            before = {"previous_response_id": first["response"]["id"]}
            frame = await turn(opened, alias, **before)
            assert frame["error"]["code"] == "previous_response_not_found"
            second = await turn(opened, alias)
            assert named(second) == MODELS["two"]
        finally:
            await world.admin("PATCH", "providers/one", enabled=True)
            await world.adopted()
        # It stays where the socket leads, and returns to state of the other target.
        assert named(await turn(opened, alias)) == MODELS["two"]
        assert named(await turn(opened, alias, **before)) == MODELS["one"]

    async def stored() -> list[tuple[Any, ...]]:
        rows = fetch(
            world.fleet.database,
            "SELECT resource_id, outcome, transport FROM requests"
            f" WHERE model = '{alias}' ORDER BY id",
        )
        return rows if len(rows) == 5 else []

    rows = await eventually(stored, SOON_S)
    assert {transport for *_, transport in rows} == {"ws"}
    homes = [(str(id_).partition("-")[0], outcome) for id_, outcome, _ in rows]
    assert homes[0] == ("one", "completed")
    assert homes[1][1] == "failed"
    assert [home for home, _ in homes[2:]] == ["two", "two", "one"]


async def test_every_lease_ended(world: World) -> None:
    await eventually(world.fleet.settled, SOON_S)
    assert await world.fleet.in_flight() == {}
    ledger = (await world.fleet.state())["ledger"]
    assert ledger["balanced"] is True
