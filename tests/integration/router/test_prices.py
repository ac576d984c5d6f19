"""Prices that the admin API sets, through all processes: what answers, costs and the
router's state say."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYS = {"sk-sim-a": "acct-a"}
PLAN = Plan(KEYS, gateways=1, services=("router", "ingest"))
COST = "x-proxy-cost-usd"
PRICE = {"input": 2.0, "cached_input": 1.0, "output": 10.0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    async with (
        Simulator(KEYS) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
    ):
        yield fleet


async def test_prices_that_are_set_reach_every_part(fleet: Fleet) -> None:
    gateway, prices = fleet.gateways[0].url, f"{fleet.admin}/prices"
    ask = {"model": "gpt-5.5", "input": "hi"}
    async with httpx.AsyncClient(timeout=20) as http:

        async def asked() -> httpx.Response:
            return await http.post(f"{gateway}/responses", json=ask)

        async def told() -> set[bool]:
            """Does each place name the model?"""
            state = (await http.get(f"{fleet.admin}/state")).json()
            ready = (await http.get(f"{fleet.router.origin}/readyz")).json()
            metrics = (await http.get(f"{fleet.router.origin}/metrics")).text
            return {
                "prices: none for gpt-5.5;" in str(state["degraded"]),
                "prices: none for gpt-5.5;" in str(ready["degraded"]),
                'proxy_unpriced_model{model="gpt-5.5"}' in metrics,
            }

        assert COST not in (await asked()).headers
        assert await told() == {False}  # nobody counts costs
        put = await http.put(f"{prices}/other", json={"prices": [PRICE]})
        assert put.status_code == 200, put.text

        async def is_named() -> bool:
            await asked()
            return await told() == {True}

        await eventually(is_named, within_s=60)
        put = await http.put(f"{prices}/gpt-5.5", json={"prices": [PRICE]})
        assert put.status_code == 200, put.text

        async def is_priced() -> bool:
            return COST in (await asked()).headers

        async def is_named_no_more() -> bool:
            return await told() == {False}

        await eventually(is_priced)
        await eventually(is_named_no_more)
        answer = await asked()
        usage = answer.json()["usage"]
        cached = usage["input_tokens_details"]["cached_tokens"]
        cost = (usage["input_tokens"] - cached) * 2 + cached
        cost += usage["output_tokens"] * 10
        assert float(answer.headers[COST]) == pytest.approx(cost / 1e6)
        streamed = await http.post(f"{gateway}/responses", json={**ask, "stream": True})
        assert COST not in streamed.headers

    async def is_summed() -> bool:
        query = "SELECT sum(cost), sum(unpriced) FROM costs_by_day"
        ((cost, unpriced),) = fetch(fleet.database, query)
        return bool(cost > 0 and unpriced == 0)

    await eventually(is_summed)


async def test_a_budget_in_dollars_is_exact_everywhere(fleet: Fleet) -> None:
    gateway = fleet.gateways[0].url
    async with httpx.AsyncClient(timeout=20) as http:
        put = await http.put(f"{fleet.admin}/prices/gpt-5.5", json={"prices": [PRICE]})
        assert put.status_code == 200, put.text
        terms = {"budget_usd": 0.001, "budget_window": "total"}
        minted = (await http.post(f"{fleet.admin}/keys", json=terms)).json()
        auth = {"authorization": f"Bearer {minted['secret']}"}
        ask = {"model": "gpt-5.5", "input": "hi"}
        answers: list[httpx.Response] = []

        async def is_priced() -> bool:
            answer = await http.post(f"{gateway}/responses", json=ask, headers=auth)
            answers.append(answer)
            return COST in answer.headers

        await eventually(is_priced)
        while answers[-1].status_code == 200:
            await is_priced()
        assert answers[-1].status_code == 429
        assert answers[-1].json()["error"]["code"] == "insufficient_quota"
        cost = round(sum(float(each.headers.get(COST, 0)) for each in answers), 9)
        assert cost >= 0.001
        shown = (await http.get(f"{fleet.admin}/keys/{minted['id']}")).json()
        assert shown["spend"]["usd"] == pytest.approx(cost, abs=1e-10)

    async def is_stored() -> bool:
        query = f"SELECT sum(cost_nanos) FROM requests WHERE proxy_key_id = '{minted['id']}'"  # noqa: E501
        ((nanos,),) = fetch(fleet.database, query)
        return bool(nanos == round(cost * 1e9))

    await eventually(is_stored)
