"""What the dashboard costs a browser: 200 resources, all of which change each second,
with 50 new requests and decisions, as at 500 requests a second.

The router is simulated, so that the figures are of the page alone. They are CPU time of
the browser's main thread: scripts, style, layout and painting. CPU time grows on a slow
or busy machine, so another tab does a fixed work meanwhile, and the figures are scaled
by what that costs. To see them, add `-o log_cli=true -o log_cli_level=INFO`."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from time import monotonic as clock
from time import time
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, CDPSession, Page

from libs.simulator.server import end, listen
from services.router.dashboard_files import CSP, DASHBOARD, FILES
from tests.support.clients.dashboard import playwright_browser, tab, until_shown
from tests.support.processes.waiting import eventually

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.alone,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("has_chromium"),
]
log = logging.getLogger(__name__)
RESOURCES = 200
SECONDS = 10
MOST_MS = 50.0  # of each second, on a machine that does the fixed work in FIXED_WORK_MS
FIXED_WORK_MS = 30.0
# Scripts, style and layout, as in an update of a page.
FIXED_WORK = """() => {
  const rows = Array.from({ length: 200 }, (_, n) => ({ id: n, at: (n * 7919) % 200 }));
  const sorted = JSON.parse(JSON.stringify(rows)).sort((a, b) => a.at - b.at);
  const table = document.createElement("table");
  for (const row of sorted) {
    const line = table.insertRow();
    for (let n = 0; n < 6; n += 1) line.insertCell().textContent = `${row.id} ${n}`;
  }
  document.body.append(table);
  if (table.offsetHeight === 0) throw new Error("no layout");
  table.remove();
}"""
VIEWS = {"#/": "Overview", "#/resources": "Resources", "#/requests": "Traffic"}


class Router:
    """Serves the dashboard's files, and an API that tells of much traffic. Updates
    leave at this part of each second."""

    def __init__(self, part: float) -> None:
        self.ticks = 0
        self._part = part
        self._requests = count(1)

    def routes(self) -> list[web.RouteDef]:
        answers = {
            "/admin/whoami": lambda: {"name": "ann", "role": "admin"},
            "/admin/charts": charts,
            "/admin/requests": lambda: page(self.requests()),
        }
        served = [web.get(path, _json(answer)) for path, answer in answers.items()]
        files = [web.get(path, _file(*file)) for path, file in FILES.items()]
        return [*served, *files, web.get("/admin/events", self.events)]

    async def events(self, asked: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await stream.prepare(asked)
        await stream.write(event("state", self.state()))
        with suppress(ConnectionError):  # the tab was closed
            while True:
                await asyncio.sleep(1 - (time() - self._part) % 1)
                self.ticks += 1
                await stream.write(event("change", self.state()))
        return stream

    def state(self) -> dict[str, Any]:
        return {
            "resources": [self.resource(n) for n in range(RESOURCES)],
            "decisions": [decision(row) for row in self.requests()],
            "requests": self.requests(),
            "attention": [attention(n) for n in range(5)],
            "affinity_count": self.ticks,
            "queue_depth": self.ticks % 50,
            "waiting": [],
            "ledger": {
                "accepted": 500 * self.ticks,
                "stored": 500 * self.ticks,
                "pending": self.ticks % 50,
                "in_flight": self.ticks % 90,
                "dead_lettered": 0,
                "balanced": True,
                "problems": [],
                "unverified": [],
            },
            "degraded": [],
            "admin": "token",
            "timestamp": now(),
        }

    def resource(self, n: int) -> dict[str, Any]:
        sick = n < 5
        limits = {
            "model": "gpt-5.5",
            "limit_requests": 10_000,
            "remaining_requests": (self.ticks * 17 + n) % 10_000,
            "requests_reset_at": now(30),
            "limit_tokens": 2_000_000,
            "remaining_tokens": (self.ticks * 1700 + n) % 2_000_000,
            "tokens_reset_at": now(30),
        }
        return {
            "id": f"openai-{n}",
            "name": f"openai-{n}",
            "pool_id": "default",
            "account_id": f"account-{n // 10}",
            "weight": 1.0,
            "health": "degraded" if sick else "healthy",
            "cooldown_until": now(30) if sick else None,
            "paused_models": ["gpt-5.5"] if sick else [],
            "limits": [limits],
            "in_flight": (self.ticks + n) % 7,
            "requests": self.ticks * 3 + n,
            "errors": self.ticks if sick else 0,
            "last_latency_ms": 400.0 + (self.ticks * n) % 300,
            "last_error": "429 rate limited" if sick else None,
        }

    def requests(self) -> list[dict[str, Any]]:
        return [request(next(self._requests)) for _ in range(50)]


def now(after_s: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=after_s)).isoformat()


def request(n: int) -> dict[str, Any]:
    return {
        "id": f"request-{n}",
        "created_at": now(-1),
        "session_id": f"session-{n % 90}",
        "session_name": None,
        "resource_id": f"openai-{n % RESOURCES}",
        "model": "gpt-5.5",
        "outcome": "failed" if n % 9 == 0 else "completed",
        "status_code": 500 if n % 9 == 0 else 200,
        "error_code": "server_error" if n % 9 == 0 else None,
        "error_message": "The upstream failed." if n % 9 == 0 else None,
        "attempts": 1 + n % 2,
        "first_token_ms": 210.5 + n % 90,
        "latency_ms": 800.0 + n % 700,
        "total_tokens": 1200 + n % 500,
    }


def decision(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("id", "created_at", "session_id")}
    return {**kept, "request_id": row["id"], "attempt": 1, "cause": None}


def attention(n: int) -> dict[str, Any]:
    return {
        "kind": "resource_cooling",
        "subject": f"openai-{n}",
        "since": now(-60),
        "until": now(30),
        "text": "This key is in a cooldown; others serve meanwhile.",
        "to_do": "Wait for the end of the cooldown.",
        "link": f"#/resources/openai-{n}",
    }


def charts() -> dict[str, Any]:
    times = [1_795_840_000 + 60 * n for n in range(60)]
    names = (
        *("requests", "failed", "failovers", "latency_p50_ms", "latency_p95_ms"),
        *("first_token_p50_ms", "first_token_p95_ms", "input_tokens"),
        *("cached_tokens", "output_tokens", "cost_usd"),
    )
    series = {name: [float(n * 37 % 500) for n in range(60)] for name in names}
    return {"window": "hour", "step_seconds": 60, "times": times, "series": series}


def page(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": rows, "next_cursor": "older"}


def event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _json(answer: Any) -> Any:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response(answer())

    return respond


def _file(name: str, content_type: str) -> Any:
    async def respond(_: web.Request) -> web.Response:
        headers = {"content-type": content_type, "content-security-policy": CSP}
        return web.Response(body=(DASHBOARD / name).read_bytes(), headers=headers)

    return respond


@asynccontextmanager
async def served(router: Router) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(router.routes())
    runner = web.AppRunner(app, shutdown_timeout=1)
    listener = await listen(runner, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await end(runner, listener)


async def spent_ms(devtools: CDPSession) -> float:
    """CPU time of the main thread since the page was opened."""
    answer = await devtools.send("Performance.getMetrics")
    found = {metric["name"]: metric["value"] for metric in answer["metrics"]}
    return float(found["TaskDuration"]) * 1000


async def ticked(router: Router, shown: Page, ticks: int) -> None:
    until = router.ticks + ticks

    async def there() -> bool:
        return router.ticks >= until

    await eventually(there, within_s=60, every_s=0.2)
    await shown.evaluate("new Promise(requestAnimationFrame)")


async def measuring(shown: Page) -> CDPSession:
    devtools = await shown.context.new_cdp_session(shown)
    await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    return devtools


async def spent_on(view: str, heading: str, part: float, browser: Browser) -> float:
    """CPU milliseconds of each second."""
    router = Router(part)
    async with served(router) as url, tab(browser) as shown:
        await shown.goto(f"{url}/{view}")
        await until_shown(shown, "h1", heading)
        await until_shown(shown, "#live", "live")
        devtools = await measuring(shown)
        await ticked(router, shown, 3)  # loaded, compiled, laid out
        before, ticks = await spent_ms(devtools), router.ticks
        await ticked(router, shown, SECONDS)
        spent = await spent_ms(devtools) - before
        return spent / (router.ticks - ticks)


async def fixed_work_ms(browser: Browser) -> float:
    """CPU milliseconds of the fixed work, the mean of as many as fit in the time."""
    async with tab(browser) as shown:
        devtools = await measuring(shown)
        for _ in range(3):
            await shown.evaluate(FIXED_WORK)  # compiled
        before, until, times = await spent_ms(devtools), clock() + SECONDS, 0
        while clock() < until:
            await shown.evaluate(FIXED_WORK)
            times += 1
            await asyncio.sleep(0.2)
        return (await spent_ms(devtools) - before) / times


async def test_a_second_of_updates_costs_little() -> None:
    """All views at the same time. Each is updated at its own part of the second, so
    that none works while another does."""
    async with playwright_browser() as browser:
        fixed, *spent = await asyncio.gather(
            fixed_work_ms(browser),
            *(
                spent_on(view, heading, number / len(VIEWS), browser)
                for number, (view, heading) in enumerate(VIEWS.items())
            ),
        )
    log.info("%s ms of each second; fixed work %.1f ms", spent, fixed)
    costs = {
        view: ms * FIXED_WORK_MS / fixed for view, ms in zip(VIEWS, spent, strict=True)
    }
    assert all(0 < ms < MOST_MS for ms in costs.values()), costs
