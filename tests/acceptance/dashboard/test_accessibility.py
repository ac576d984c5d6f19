"""Every view and dialog, for everybody: axe-core finds nothing serious, in light and
dark colors and on a phone; the keyboard alone suffices."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.support.clients.dashboard import (
    AXE,
    PHONE,
    TALL,
    Dashboard,
    serious_faults,
    tab,
    until_shown,
    visit,
)
from tests.support.processes.waiting import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("has_chromium"),
]
VIEWS = {
    "#/": "Overview",
    "#/resources": "Resources and accounts",
    "#/resources/openai-2": "Resource openai-2",
    "#/requests": "Traffic",
    "#/requests?show=decisions": "Traffic",
    "#/requests/{request}": "Request",
    "#/sessions": "Sessions",
    "#/sessions/seen": "Session seen",
    "#/keys": "Keys and teams",
    "#/keys/{key}": "Key",
    "#/providers": "Providers and models",
    "#/system": "Ledger and system",
    "#/explain?ask=1&model=gpt-5.5": "Explain",
}
DIALOGS = [
    ("#/keys", "Mint a key"),
    ("#/keys", "New team"),
    ("#/keys", "Change observed"),
    ("#/keys", "Revoke observed"),
    ("#/providers", "Add a provider"),
    ("#/system", "Mint a token"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ids(product: Dashboard) -> AsyncIterator[dict[str, str]]:
    """Something is to be seen in each view: a sick key, its failover, a key."""
    key = await product.admin("POST", "/keys", {"name": "observed"})
    await product.admin("POST", "/providers", {**PROVIDER, "base_url": base(product)})
    await product.sim("revoke", key="sk-dash-1")
    answers = [await product.ask("seen") for _ in range(8)]
    await product.admin("POST", "/health/check")
    newest = answers[-1].headers["x-proxy-request-id"]

    async def stored() -> bool:
        page = await product.admin("GET", f"/requests?request_id={newest}")
        return bool(page["data"])

    await eventually(stored)
    yield {"request": newest, "key": key["id"]}


PROVIDER = {"id": "spare", "api_key": "sk-dash-0", "enabled": False}


def base(product: Dashboard) -> str:
    return product.simulator.base_url


async def loaded(page: Page, heading: str) -> None:
    """Wait until the view and its data are there."""
    await until_shown(page, "h1", heading)
    await until_shown(page, "#live", "live")
    await expect(page.locator("td.empty", has_text=re.compile("^…$"))).to_have_count(0)


@pytest.mark.parametrize("looks", ["light", "dark", "phone"])
async def test_axe_finds_nothing_serious(
    product: Dashboard, ids: dict[str, str], looks: str
) -> None:
    viewport = PHONE if looks == "phone" else TALL
    scheme = "dark" if looks == "dark" else "light"
    found = {}
    async with product.at(viewport=viewport, color_scheme=scheme) as page:
        await page.evaluate(AXE.read_text())
        for view, heading in VIEWS.items():
            await visit(page, product.origin, view.format(**ids))
            await loaded(page, heading)
            found[view] = await serious_faults(page)
            width = await page.evaluate("document.documentElement.scrollWidth")
            if width > viewport["width"]:
                found[view].append(f"scrolls sideways: {width} pixels")
    assert {view: faults for view, faults in found.items() if faults} == {}


@pytest.mark.parametrize("looks", ["light", "dark", "phone"])
async def test_axe_finds_nothing_serious_in_dialogs(
    product: Dashboard, ids: dict[str, str], looks: str
) -> None:
    viewport = PHONE if looks == "phone" else TALL
    scheme = "dark" if looks == "dark" else "light"
    found = {}
    async with product.at(viewport=viewport, color_scheme=scheme) as page:
        await page.evaluate(AXE.read_text())
        for view, button in DIALOGS:
            await visit(page, product.origin, view)
            await page.get_by_role("button", name=button).first.click()
            await expect(page.get_by_role("dialog")).to_be_visible()
            found[button] = await serious_faults(page)
            await page.keyboard.press("Escape")
    assert {button: faults for button, faults in found.items() if faults} == {}


async def test_axe_finds_nothing_serious_in_the_login(product: Dashboard) -> None:
    async with tab(product.browser) as page:
        await page.goto(f"{product.origin}/")
        await expect(page.get_by_label("Admin token")).to_be_visible()
        await page.evaluate(AXE.read_text())
        assert await serious_faults(page) == []


async def test_rows_are_cards_on_a_phone(product: Dashboard) -> None:
    async with product.at("#/resources", viewport=PHONE) as page:
        await until_shown(page, "tbody tr", "openai-1")
        await expect(page.locator("thead")).to_be_hidden()
        row = page.locator("tbody tr").first
        box = await row.bounding_box()
        assert box is not None
        assert box["width"] <= PHONE["width"]
        assert box["height"] > 100  # one line for each cell
        label = (
            await row.locator("td")
            .nth(1)
            .evaluate("cell => getComputedStyle(cell, '::before').content")
        )
        assert label == '"Health"'


async def test_dark_colors_are_dark(product: Dashboard) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        async with product.at(color_scheme=scheme) as page:
            color = await page.evaluate(
                "getComputedStyle(document.body).backgroundColor"
            )
            grounds.append(sum(map(int, re.findall(r"\d+", color)[:3])))
    assert grounds[0] > 600 > 200 > grounds[1]


async def test_the_keyboard_suffices(product: Dashboard, ids: dict[str, str]) -> None:
    async with product.at("#/") as page:
        await until_shown(page, "#live", "live")
        keys = page.keyboard
        # The first stop skips the menu.
        await page.evaluate("document.activeElement.blur()")
        await keys.press("Tab")
        assert await focused(page) == "Skip to the content"
        await keys.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        assert page.url.endswith("#/")
        await tab_to(page, "Resources", back=True)
        await keys.press("Enter")
        await until_shown(page, "h1", "Resources and accounts")
        assert await page.evaluate("document.activeElement.id") == "main"
        # The search, by its key; then the first row.
        await keys.press("/")
        await keys.type("openai-2")
        await expect(page.locator("tbody tr")).to_have_count(1)
        assert "q=openai-2" in page.url
        await tab_to(page, "Requests")
        await keys.press("Enter")
        sorted_by = page.locator("th[aria-sort=ascending]")
        await until_shown(page, "th[aria-sort=ascending]", "Requests")
        await keys.press("Enter")
        await until_shown(page, "th[aria-sort=descending]", "Requests")
        await expect(sorted_by).to_have_count(0)
        await tab_to(page, "openai-2")
        await keys.press("Enter")
        await until_shown(page, "h1", "Resource openai-2")
        # A form in a dialog: focus goes in, stays in, and returns.
        await visit(page, product.origin, "#/keys")
        await tab_to(page, "Mint a key")
        await keys.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await tab_to_field(page, "name")
        await keys.type("by keyboard")
        await keys.press("Enter")
        await until_shown(page, "#dialog-title", "The new key")
        await keys.press("Escape")
        await until_shown(page, "td", "by keyboard")
        assert await focused(page) == "Mint a key"


async def focused(page: Page) -> str:
    return str(await page.evaluate("document.activeElement.textContent.trim()"))


async def tab_to(page: Page, text: str, *, back: bool = False) -> None:
    for _ in range(60):
        await page.keyboard.press("Shift+Tab" if back else "Tab")
        if await focused(page) == text:
            return
    raise AssertionError(f"no Tab leads to {text!r}")


async def tab_to_field(page: Page, name: str) -> None:
    for _ in range(60):
        if await page.evaluate("document.activeElement.name") == name:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"no Tab leads to the field {name!r}")
