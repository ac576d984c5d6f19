"""Two shards of one stack, with all their processes: what is done in one holds in the
other."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.databases.postgres import fresh_database
from tests.support.processes.fleet import Fleet
from tests.support.processes.following import load_on
from tests.support.processes.waiting import eventually
from tests.support.worlds.shards import (
    MODEL,
    NAMES,
    Client,
    Shards,
    running_shards,
    within,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
# What docs/operate.md says, in seconds.
CHANGED_WITHIN = 3
SPENT_WITHIN = 3
PROVIDER = {
    "id": "acme",
    "provider_type": "custom",
    "credential_ref": "env:PROVIDER_ACME",
    "pool_id": "acme",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shards(
    postgres_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shards]:
    folder = tmp_path_factory.mktemp("shards")
    with fresh_database(postgres_server) as database:
        async with running_shards(database, folder) as shards:
            yield shards


async def test_a_key_holds_and_ends_in_both(shards: Shards) -> None:
    key = await shards.mint(shards.one)

    async def answers(status: int) -> bool:
        return await key.status(shards.other) == status

    await within(lambda: answers(200), CHANGED_WITHIN)
    await shards.admin(shards.one, "DELETE", f"keys/{key.id}")
    await within(lambda: answers(401), CHANGED_WITHIN)


async def test_an_alias_is_known_in_both(shards: Shards) -> None:
    url = shards.one.simulator.base_url
    await shards.admin(shards.other, "POST", "providers", **PROVIDER, base_url=url)
    alias = {"alias": "quick", "provider_id": "acme", "upstream_id": MODEL}
    await shards.admin(shards.other, "POST", "models", **alias)

    async def known() -> bool:
        body = {"model": "quick", "input": "hi"}
        url = f"{shards.one.gateways[0].url}/responses"
        answer = await shards.http.post(url, json=body)
        return answer.headers["x-proxy-resource-id"] == "acme"

    await within(known, CHANGED_WITHIN)


async def test_a_budget_of_a_team_is_that_of_both(shards: Shards) -> None:
    await shards.admin(shards.one, "POST", "teams", id="red", budget_tokens=10**6)
    keys = [await shards.mint(f, team_id="red") for f in (shards.one, shards.other)]

    async def known() -> bool:
        return [await keys[0].status(f) for f in (shards.one, shards.other)] == [
            200
        ] * 2

    await within(known, CHANGED_WITHIN)
    for key, fleet in zip(keys, (shards.one, shards.other), strict=True):
        for _ in range(5):
            assert await key.status(fleet) == 200

    await eventually(lambda: shards.agree("teams/red", "team_id"))
    spent = await shards.spent(shards.one, "teams/red") or 0
    await shards.admin(shards.one, "PATCH", "teams/red", budget_tokens=spent + 1)

    async def spends_the_rest() -> bool:
        """In one shard."""
        return await keys[0].status(shards.one) == 429

    await within(spends_the_rest, CHANGED_WITHIN)

    async def refused() -> bool:
        return await keys[1].status(shards.other) == 429

    await within(refused, SPENT_WITHIN)
    await eventually(lambda: shards.agree("teams/red", "team_id"))


async def test_budgets_agree_whatever_dies(shards: Shards) -> None:
    """Routers and ingest processes are killed, and one Redis is emptied, while clients
    spend in both shards."""
    fleets = shards.one, shards.other
    await shards.admin(shards.one, "POST", "teams", id="blue", budget_tokens=10**9)
    keys = [
        await shards.mint(
            shards.one, team_id="blue", budget_tokens=10**9, budget_reserve=reserves
        )
        for reserves in (False, True)
    ]
    calls = [(key, fleet) for key in keys for fleet in fleets]
    over = False

    async def answers() -> bool:
        asked = [key.status(fleet, max_output_tokens=50) for key, fleet in calls]
        return set(await asyncio.gather(*asked)) == {200}

    async def spends(key: Client, fleet: Fleet) -> None:
        while not over:
            assert await key.status(fleet, max_output_tokens=50) in (200, 503)

    await eventually(answers)
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(spends(*call))
        for fleet, service in zip(fleets, ("router", "ingest"), strict=True):
            fleet.services[service].process.kill()
            await asyncio.sleep(1)
            fleet.services[service].start_anew()
            await fleet.services[service].ready()
        await shards.empty_node(NAMES[1])
        await asyncio.sleep(2)
        over = True

    await eventually(answers)
    await eventually(lambda: shards.agree("teams/blue", "team_id"))
    for key in keys:
        await eventually(lambda: shards.agree(f"keys/{key.id}", "proxy_key_id"))  # noqa: B023


async def test_an_id_of_one_is_known_in_the_other(shards: Shards) -> None:
    mine, theirs = await shards.mint(shards.one), await shards.mint(shards.one)

    async def known() -> bool:
        return {await key.status(shards.other) for key in (mine, theirs)} == {200}

    await within(known, CHANGED_WITHIN)
    first = await mine.ask(shards.one, store=True)
    soon = await mine.ask(shards.other, previous_response_id=first.json()["id"])
    assert soon.status_code == 200
    id_, resource = first.json()["id"], first.headers["x-proxy-resource-id"]

    async def stored() -> bool:
        query = f"SELECT 1 FROM requests WHERE response_id = '{id_}'"
        return shards.rows(query) == [(1,)]

    await eventually(stored)
    foreign = await theirs.ask(shards.other, previous_response_id=id_)
    assert foreign.status_code == 400
    assert foreign.json()["error"]["code"] == "previous_response_not_found"
    follow_up = await mine.ask(shards.other, previous_response_id=id_)
    assert follow_up.status_code == 200
    assert follow_up.headers["x-proxy-resource-id"] == resource
    assert follow_up.headers["x-proxy-reason"] == "response_affinity"


async def test_all_requests_are_in_one_ledger(shards: Shards) -> None:
    async with (
        load_on([shards.one.gateways[0].url]) as load,
        load_on([shards.other.gateways[0].url]) as other,
    ):
        await load.went_on()
        await other.went_on()
    assert load.failed == other.failed == {}
    wanted = sorted([*load.answered, *other.answered])

    async def stored() -> bool:
        ids = ", ".join(f"'{id_}'" for id_ in wanted)
        query = f"SELECT id FROM requests WHERE id IN ({ids}) ORDER BY id"
        return [id_ for (id_,) in shards.rows(query)] == wanted

    await eventually(stored)
    for fleet in (shards.one, shards.other):

        async def closed() -> bool:
            ledger = await shards.admin(fleet, "GET", "ledger")  # noqa: B023
            rows = shards.rows("SELECT count(*) FROM requests")
            even = rows == [(ledger["stored"],)] == [(ledger["accepted"],)]
            return even and bool(ledger["balanced"])

        await eventually(closed)
        ledger = await shards.admin(fleet, "GET", "ledger")
        states = {
            (g["shard"], g["state"]) for g in ledger["gateways"] if g["id"] != "*"
        }
        own = (await shards.admin(fleet, "GET", "state"))["shard"]
        assert states == {(n, "running" if n == own else "other") for n in NAMES}
        told = (await shards.admin(fleet, "GET", "attention"))["data"]
        kinds = {item["kind"] for item in told}
        assert kinds.isdisjoint({"gateway_silent", "ledger_open"})
    found = shards.rows(
        "SELECT shard, requests.id FROM requests JOIN gateways "
        "ON gateways.id = gateway_id"
    )
    for name, sent in zip(NAMES, (load, other), strict=True):
        assert {(name, id_) for id_ in sent.answered} <= set(found)


async def test_a_lost_node_is_that_of_one_shard(shards: Shards) -> None:
    async with (
        load_on([shards.one.gateways[0].url]) as load,
        load_on([shards.other.gateways[0].url]) as other,
    ):
        await shards.lose_node(NAMES[1])
        await load.went_on()
        await other.went_on()  # by itself
        await load.went_on()
    assert load.failed == other.failed == {}
    ids = ", ".join(f"'{id_}'" for id_ in load.answered)
    query = "SELECT count(*) FROM decisions WHERE degraded AND request_id IN "

    async def stored() -> bool:
        found = shards.rows(f"SELECT count(*) FROM requests WHERE id IN ({ids})")
        return found == [(len(load.answered),)]

    await eventually(stored)
    assert shards.rows(f"{query} ({ids})") == [(0,)]
