"""Headless Chromium, driven over the DevTools protocol."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.processes.debian import program
from tests.support.processes.processes import Process
from tests.support.processes.waiting import eventually

START_S = 60.0  # a cold start on a busy machine
ANSWER_S = 60.0
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--password-store=basic",
    "--remote-debugging-port=0",
)


class Page:
    """One tab."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session

    async def visit(self, url: str) -> None:
        """Open `url` and wait until it is loaded."""
        browser = self._browser
        loaded = browser.wait_for("Page.loadEventFired", self._session)
        answer = await browser.ask("Page.navigate", self._session, url=url)
        assert "errorText" not in answer, answer["errorText"]
        await asyncio.wait_for(loaded, ANSWER_S)

    async def ignore_policies(self) -> None:
        """Disable Content-Security-Policy for pages loaded later."""
        await self._browser.ask("Page.setBypassCSP", self._session, enabled=True)

    async def follow(self, url: str) -> None:
        """Navigate as by a link on the page."""
        loaded = self._browser.wait_for("Page.loadEventFired", self._session)
        await self.run(f"location.href = {json.dumps(url)};")
        await asyncio.wait_for(loaded, ANSWER_S)

    async def run(self, script: str) -> Any:
        """The value that the body of an async function returns in the page."""
        answer = await self._browser.ask(
            "Runtime.evaluate",
            self._session,
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def sees(self, selector: str) -> str | None:
        """The text of a visible element."""
        found = f"const e = document.querySelector({json.dumps(selector)});"
        shown = "return e && e.offsetParent !== null ? e.innerText : null;"
        text: str | None = await self.run(found + shown)
        return text


class Browser:
    """A connection to a running Chromium."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: list[tuple[str, str, asyncio.Future[None]]] = []

    async def hear(self) -> None:
        async for message in self._connection:
            told = json.loads(message)
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
                continue
            seen = told["method"], told.get("sessionId", "")
            for event in [e for e in self._events if e[:2] == seen]:
                self._events.remove(event)
                event[2].set_result(None)

    def wait_for(self, method: str, session: str) -> "asyncio.Future[None]":
        """Completes at the next event of this name."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events.append((method, session, future))
        return future

    async def ask(
        self, method: str, session: str = "", **params: Any
    ) -> dict[str, Any]:
        number = next(self._numbers)
        asked: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            asked["sessionId"] = session
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps(asked))
        told = await asyncio.wait_for(self._waiting[number], ANSWER_S)
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def page(self) -> Page:
        """A new tab."""
        target = (await self.ask("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.ask(
            "Target.attachToTarget", targetId=target, flatten=True
        )
        session = attached["sessionId"]
        await self.ask("Page.enable", session)
        return Page(self, session)


@asynccontextmanager
async def chromium(folder: Path, *options: str) -> AsyncIterator[Browser]:
    """A Chromium with its own profile."""
    profile = folder / "profile"
    command = [program("chromium", "chromium"), *OPTIONS, *options]
    if os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to run as root in a sandbox
    command += [f"--user-data-dir={profile}", "about:blank"]
    home = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    process = Process(command, home, folder / "chromium.log")
    try:
        address = await _address(process, profile / "DevToolsActivePort")
        async with connect(address, max_size=2**24, proxy=None) as connection:
            browser = Browser(connection)
            hearing = asyncio.create_task(browser.hear())
            try:
                yield browser
            finally:
                hearing.cancel()
                with suppress(asyncio.CancelledError):
                    await hearing
    finally:
        await asyncio.to_thread(_end, process)


async def _address(process: Process, file: Path) -> str:
    """Chromium writes its port and path into its profile."""

    async def found() -> list[str] | None:
        assert process.alive, process.log.read_text()[-3000:]
        return _lines(file)

    lines = await eventually(found, within_s=START_S)
    assert lines is not None
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"


def _lines(file: Path) -> list[str] | None:
    lines = file.read_text().split() if file.exists() else []
    return lines if len(lines) == 2 else None


def _end(process: Process) -> None:
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        process.kill()


@pytest.fixture(scope="session")
def has_chromium() -> str:
    """Chromium's path. Without it the test is skipped, or fails in CI."""
    return program("chromium", "chromium")
