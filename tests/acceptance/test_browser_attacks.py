"""Finding: any web page could take every upstream key. A real Chromium opens pages of
others, and they try."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from libs.common.store.opening import open_store
from libs.common.store.registry import RegistryRows
from libs.simulator.server import Simulator
from tests.support.attacker import Site, attacking
from tests.support.chromium import Browser, Page, chromium
from tests.support.up import Up, environment, running

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("has_chromium"),
]
KEYS = {"sk-secret-1": "acct-a", "sk-secret-2": "acct-b"}
REBOUND = "evil.example"  # its name leads to the proxy's machine


@dataclass
class Scene:
    """A running product, a browser on the same machine, and a site of an attacker."""

    up: Up
    browser: Browser
    site: Site

    @property
    def origin(self) -> str:
        return self.up.url.removesuffix("/v1")

    @property
    def port(self) -> str:
        return self.up.environ["PROXY_PORT"]

    async def page_at(self, url: str) -> Page:
        page = await self.browser.page()
        await page.visit(url)
        return page


@asynccontextmanager
async def scene(folder: Path, **settings: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(KEYS))
        site = await stack.enter_async_context(attacking())
        environ = environment(
            folder,
            PROXY_UPSTREAM_BASE_URL=simulator.base_url,
            OPENAI_API_KEYS=",".join(KEYS),
            **settings,
        )
        up = stack.enter_context(running(environ, folder))
        # In a thread: this loop serves the upstream, which health checks ask.
        await asyncio.to_thread(up.wait_until_ready)
        rules = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
        browser = await stack.enter_async_context(chromium(folder, rules))
        yield Scene(up, browser, site)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_admin(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """Without a token: what browsers are refused must not hang on it."""
    folder = tmp_path_factory.mktemp("open")
    async with scene(folder, PROXY_ALLOW_OPEN_ADMIN="true") as found:
        yield found


async def providers(up: Up) -> list[Any]:
    store = open_store(up.database)
    try:
        return list(await RegistryRows(store.fetch).providers())
    finally:
        await store.close()


def sent(url: str, body: dict[str, Any], **more: Any) -> str:
    """A script that sends a request and says what its page got to see."""
    options = json.dumps({"method": "POST", "body": json.dumps(body), **more})
    return f"""
        try {{
            const answer = await fetch({json.dumps(url)}, {options});
            return [answer.type, answer.status, await answer.text()];
        }} catch (error) {{ return ["error", 0, String(error)]; }}
    """


class TestAPageOfAnotherOrigin:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "evil.localhost"])
    @pytest.mark.parametrize("path", ["test", ""])
    async def test_gets_no_upstream_key(
        self, open_admin: Scene, host: str, path: str
    ) -> None:
        site = open_admin.site
        page = await open_admin.page_at(f"http://{host}:{site.port}/")
        bait: dict[str, Any] = {
            "provider_type": "custom",
            "base_url": f"http://127.0.0.1:{site.port}/v1",
            "credential_ref": "env:OPENAI_API_KEYS",
        }
        if not path:
            bait |= {"id": "bait"}
        url = f"{open_admin.origin}/admin/providers/{path}".rstrip("/")
        simple = {"mode": "no-cors", "headers": {"content-type": "text/plain"}}
        seen = await page.run(sent(url, bait, **simple))
        assert seen[0] == "opaque"  # it was sent, and answered
        assert site.stolen == []
        assert await providers(open_admin.up) == []
