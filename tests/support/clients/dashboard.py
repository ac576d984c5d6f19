"""The dashboard of a running product, in Chromium, driven by Playwright."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.fernet import Fernet
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    async_playwright,
    expect,
)

from libs.simulator.server import RunningSimulator
from tests.support.databases.valkey import running_valkey
from tests.support.processes.debian import program
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.upstreams.simulator import Simulator

KEYS = {f"sk-dash-{n}": f"acct-{n % 2}" for n in range(4)}
TOKEN = "token-of-the-operator-0123456789"
TALL = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
WAIT_MS = 60_000  # for a view; only a failure takes that long
expect.set_options(timeout=WAIT_MS)  # five seconds by default
AXE = Path(__file__).with_name("axe.min.js")


@asynccontextmanager
async def playwright_browser() -> AsyncIterator[Browser]:
    """The installed Chromium; Playwright downloads none."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program("chromium", "chromium")
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(frozen=True)
class _Tab:
    page: Page
    wrong: list[str]  # failed scripts, and what the content security policy stopped


@asynccontextmanager
async def _opened(browser: Browser, context: dict[str, Any]) -> AsyncIterator[_Tab]:
    opened = await browser.new_context(**{"viewport": TALL, **context})
    opened.set_default_timeout(WAIT_MS)
    wrong: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and "Security Policy" in message.text:
            wrong.append(message.text)

    try:
        page = await opened.new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        yield _Tab(page, wrong)
    finally:
        await opened.close()


@asynccontextmanager
async def tab(browser: Browser, **context: Any) -> AsyncIterator[Page]:
    """A tab with a session of its own. Fails if a script failed, or if the content
    security policy stopped something."""
    async with _opened(browser, context) as opened:
        yield opened.page
        assert opened.wrong == []


class Tabs:
    """Tabs that later tests use again, each without a session. A new tab needs a new
    process, which compiles all scripts: four times the CPU of a page in an old tab."""

    def __init__(self, browser: Browser, stack: AsyncExitStack) -> None:
        self._browser = browser
        self._stack = stack  # closes them
        self._free: dict[str, list[_Tab]] = {}  # by their looks

    @asynccontextmanager
    async def one(self, **context: Any) -> AsyncIterator[Page]:
        """As `tab`. One that a test failed with is not used again."""
        free = self._free.setdefault(json.dumps(context, sort_keys=True), [])
        used = free.pop() if free else await self._new(context)
        yield used.page
        assert used.wrong == []
        await used.page.unroute_all()
        await used.page.evaluate("sessionStorage.clear()")
        await used.page.goto("about:blank")
        free.append(used)

    async def _new(self, context: dict[str, Any]) -> _Tab:
        return await self._stack.enter_async_context(_opened(self._browser, context))


@dataclass
class Dashboard:
    """A running product with a simulated upstream, and a browser."""

    fleet: Fleet
    simulator: RunningSimulator
    browser: Browser
    tabs: Tabs
    http: httpx.AsyncClient = field(repr=False)

    @property
    def origin(self) -> str:
        return self.fleet.gateways[0].origin

    @asynccontextmanager
    async def at(
        self, view: str = "#/", *, token: str = TOKEN, **context: Any
    ) -> AsyncIterator[Page]:
        """A tab that is logged in and shows this view."""
        async with self.tabs.one(**context) as page:
            await page.goto(f"{self.origin}/#token={token}")
            await page.locator("#view h1").wait_for()
            await visit(page, self.origin, view)
            yield page

    async def ask(self, session: str = "", **body: Any) -> httpx.Response:
        """A request through the gateway, with its id in `x-proxy-request-id`."""
        headers = {"x-session-id": session} if session else {}
        asked = {"model": "gpt-5.5", "input": "Say hello", **body}
        return await self.http.post(
            f"{self.origin}/v1/responses", json=asked, headers=headers
        )

    async def sim(self, order: str, **body: Any) -> None:
        base = self.simulator.base_url.removesuffix("/v1")
        answer = await self.http.post(f"{base}/__sim/{order}", json=body)
        answer.raise_for_status()

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.http.request(
            method,
            f"{self.origin}/admin{path}",
            json={} if body is None and method != "GET" else body,
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        answer.raise_for_status()
        return answer.json()


async def visit(page: Page, origin: str, view: str) -> None:
    await page.goto(f"{origin}/{view}")
    await page.locator("#view h1").wait_for()


@asynccontextmanager
async def dashboard(folder: Path) -> AsyncIterator[Dashboard]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(KEYS))
        own = {
            "OPENAI_RESOURCE_ACCOUNT_IDS": "",
            "PROXY_ADMIN_TOKEN": TOKEN,
            "PROXY_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        }
        plan = Plan(KEYS, 1, ("router", "health", "ingest"), own)
        redis_url = stack.enter_context(running_valkey(folder))
        started = running_fleet(plan, simulator, redis_url, folder)
        fleet = await stack.enter_async_context(started)
        await fleet.has_tables()
        browser = await stack.enter_async_context(playwright_browser())
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        tabs = Tabs(browser, stack)
        yield Dashboard(fleet, simulator, browser, tabs, http)


async def until_shown(page: Page, selector: str, text: str) -> None:
    """Wait until an element contains a text."""
    found = page.locator(selector).filter(has_text=re.compile(re.escape(text)))
    await found.first.wait_for()


async def serious_faults(page: Page) -> list[str]:
    """What axe-core finds: rule, and the elements. The page must have been opened with
    `AXE` as its init script."""
    found = await page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']}))"
        ".violations.filter(({impact}) => ['serious', 'critical'].includes(impact))"
        ".map(({id, nodes}) => id + ': ' + nodes.map((n) => n.target).join(' | '))"
    )
    return list(found)
