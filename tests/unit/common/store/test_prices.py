from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from libs.common.contracts.prices import Price
from libs.common.errors import SettingError
from libs.common.store.interface import Actor
from libs.common.store.prices import (
    PriceRows,
    prices_of,
    read_price_list,
    read_prices,
    unpriced_problem,
)
from libs.common.store.proxy_keys import NewKey, ProxyKeyRows, TeamRows
from libs.common.store.rows import iso
from libs.common.store.sqlite.store import SqliteStore

LINE = """
[[price]]
model = "gpt-5"
valid_from = 2025-08-07
input = 1.25
cached_input = 0.125
output = 10
"""


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(LINE)
    valid_from = datetime(2025, 8, 7, tzinfo=UTC)
    assert read_prices(path) == [Price("gpt-5", valid_from, 1.25, 0.125, 10.0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, "cannot be read", id="no file"),
        pytest.param("[[price", "is not TOML", id="no TOML"),
        pytest.param("", "price: is missing", id="empty"),
        pytest.param(
            LINE.replace("1.25", "-1"), "price.0.input: is not a number", id="negative"
        ),
        pytest.param(LINE.replace("1.25", "nan"), "price.0.input:", id="no number"),
        pytest.param(LINE.replace("output", "outputs"), "price.0.output", id="typo"),
        pytest.param(LINE * 2, "two prices", id="twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "prices.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match=r"PROXY_PRICES_FILE: .*prices\.toml") as it:
        read_prices(path)
    assert says in str(it.value)


def test_tiers_and_reasoning(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(LINE + LINE + 'reasoning = 5\nservice_tier = "flex"\n')
    general, flex = read_prices(path)
    assert (general.service_tier, general.reasoning) == ("", None)
    assert (flex.service_tier, flex.reasoning) == ("flex", 5.0)


# In SQL ------------------------------------------------------------------------

NOW = datetime(2026, 5, 1, tzinfo=UTC)
OWN = {
    "input": 1.0,
    "cached_input": 0.5,
    "output": 2.0,
    "reasoning": None,
    "service_tier": "",
    "valid_from": "1970-01-01T00:00:00.000Z",
}


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "proxy.sqlite3") as store:
        await store.migrate()
        old = datetime(2025, 1, 1, tzinfo=UTC)
        await store.put_prices(
            [
                Price("m", old, 9.0, 9.0, 9.0),
                Price("m", old, 8.0, 8.0, 8.0, 7.0, "flex"),
                Price("n", old, 1.0, 1.0, 1.0),
            ]
        )
        yield store


async def listed(store: SqliteStore) -> dict[tuple[str, str], float]:
    prices = await read_price_list(store.fetch)
    return {(price.model, price.service_tier): price.input for price in prices}


@pytest.mark.asyncio
async def test_own_prices_replace_those_of_the_file(store: SqliteStore) -> None:
    rows = PriceRows(store.fetch)
    assert await listed(store) == {("m", ""): 9, ("m", "flex"): 8, ("n", ""): 1}
    row = await rows.put("m", [OWN], NOW)
    assert (row["model"], row["prices"]) == ("m", [OWN])
    assert await listed(store) == {("m", ""): 1, ("n", ""): 1}
    assert [each["own"] for each in await rows.effective()] == [True, False]
    assert await rows.delete("m")
    assert not await rows.delete("m")
    assert not await rows.delete("\0")
    assert len(await listed(store)) == 3


@pytest.mark.asyncio
async def test_a_price_comes_back_as_it_was(store: SqliteStore) -> None:
    flex = next(p for p in await read_price_list(store.fetch) if p.service_tier)
    old = datetime(2025, 1, 1, tzinfo=UTC)
    assert flex == Price("m", old, 8.0, 8.0, 8.0, 7.0, "flex")
    assert prices_of([]) == ()


@pytest.mark.asyncio
async def test_each_change_leaves_a_row(store: SqliteStore) -> None:
    rows = PriceRows(store.fetch).by(Actor("ann"))
    await rows.put("x", [OWN], NOW)
    await rows.put("x", [OWN], NOW + timedelta(1))  # the same
    await rows.put("x", [{**OWN, "input": 3.0}], NOW)
    await rows.delete("x")
    query = {"actor": None, "object_type": "price", "object_id": "x"}
    found = await store.fetch(
        "audit_log", {**query, "before_at": "9999", "before_id": "", "rows": 9}
    )
    assert [row["action"] for row in found] == ["delete", "change", "change"]
    changed = found[1]["changes"]
    assert changed["prices"]["after"][0]["input"] == 3.0


async def note(store: SqliteStore, model: str, at: datetime, requests: int = 1) -> None:
    values = {"model": model, "asked": f"asked-{model}", "requests": requests}
    await store.fetch("put_unpriced_model", {**values, "at": iso(at)})


@pytest.mark.asyncio
async def test_models_without_a_price(store: SqliteStore) -> None:
    rows = PriceRows(store.fetch)
    for model in ("m", "x", "x", "y"):
        await note(store, model, NOW)
    await note(store, "old", NOW - timedelta(days=2))
    found = await rows.unpriced(NOW)
    assert [(row["model"], row["requests"]) for row in found] == [("x", 2), ("y", 1)]
    await rows.put("asked-x", [OWN], NOW)
    assert [row["model"] for row in await rows.unpriced(NOW)] == ["y"]
    await store.put_prices([])
    await rows.delete("asked-x")
    assert await rows.unpriced(NOW) == []  # nobody counts costs
    await store.fetch("drop_unpriced_models", {"before": iso(NOW)})


@pytest.mark.parametrize("of", ["key", "team"])
@pytest.mark.asyncio
async def test_a_budget_in_dollars_needs_prices(store: SqliteStore, of: str) -> None:
    await store.put_prices([])
    await note(store, "m", NOW)
    rows = PriceRows(store.fetch)
    teams, keys = TeamRows(store.fetch), ProxyKeyRows(store.fetch)
    limits = None, 5, None, NOW
    await teams.add({"id": "t", "name": "", "policy": None, "budget_tokens": 5}, NOW)
    if of == "key":
        await keys.add(NewKey("k", "", "", "h", None, (), *limits, budget={"usd": 1.0}))
    else:
        assert await rows.unpriced(NOW) == []
        await teams.change("t", {"budget_usd": 1.0})
    assert [row["model"] for row in await rows.unpriced(NOW)] == ["m"]
    await (keys.revoke("k", NOW) if of == "key" else teams.delete("t"))
    assert await rows.unpriced(NOW) == []


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ((), None),
        (("a", "b"), "prices: none for a, b; what they cost is not counted"),
        (
            tuple("abcdef"),
            "prices: none for a, b, c, d, e, ...; what they cost is not counted",
        ),
    ],
)
def test_what_is_said_of_them(models: tuple[str, ...], said: str | None) -> None:
    assert unpriced_problem(models) == said
