"""Web pages of an attacker, opened in a real Chromium, try to reach upstream keys and
the admin API."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from libs.common.browser_guard import CHECKED
from libs.common.store.factory import open_store
from libs.common.store.providers import RegistryRows
from libs.simulator.server import RunningSimulator
from tests.support.clients.attacker import Site, attacking, sent, socket
from tests.support.clients.chromium import Browser, Page, chromium
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Plan, running_fleet
from tests.support.processes.up import Up, environment, running
from tests.support.processes.waiting import eventually
from tests.support.processes.written import written_files
from tests.support.upstreams.simulator import Simulator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("has_chromium"),
]
KEYS = {"sk-secret-1": "acct-a", "sk-secret-2": "acct-b"}
ASKED = {"model": "gpt-5.5", "input": "Say hello"}
REBOUND = "evil.example"  # an attacker's host name that resolves to the proxy's machine


@dataclass
class Scene:
    """A running product, a browser on the same machine, and an attacker's site."""

    origin: str
    router: str  # its origin
    database: str
    simulator: RunningSimulator
    browser: Browser
    site: Site

    @property
    def port(self) -> str:
        return self.origin.rpartition(":")[2]

    async def page_at(self, url: str) -> Page:
        page = await self.browser.page()
        await page.visit(url)
        return page


@dataclass
class Started(Scene):
    """A product that `up` started, with the token that a first start creates."""

    up: Up

    @property
    def link(self) -> str:
        """The login link in the banner of `up`."""
        (link,) = re.findall(r"http://\S+#token=\S+", self.up.output)
        return str(link)

    @property
    def token(self) -> str:
        return self.link.partition("#token=")[2]


LISTED = "listed.localhost"  # an origin whose pages may use /v1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with attacking() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with Simulator(KEYS) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    rules = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
    async with chromium(tmp_path_factory.mktemp("chromium"), rules) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_admin(
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: str,
    simulator: RunningSimulator,
    browser: Browser,
    site: Site,
) -> AsyncIterator[Scene]:
    """Without a token: browser protection must not depend on the token."""
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("open")
    opened = {"PROXY_ALLOW_OPEN_ADMIN": "true"}
    plan = Plan(KEYS, 1, ("router", "ingest"), opened)
    async with running_fleet(plan, simulator, valkey_server, folder) as fleet:
        await fleet.has_tables()
        origins = (fleet.gateways[0].origin, fleet.router.origin)
        yield Scene(*origins, fleet.database, simulator, browser, site)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def with_token(
    tmp_path_factory: pytest.TempPathFactory,
    simulator: RunningSimulator,
    browser: Browser,
    site: Site,
) -> AsyncIterator[Started]:
    folder = tmp_path_factory.mktemp("token")
    environ = environment(
        folder,
        PROXY_UPSTREAM_BASE_URL=simulator.base_url,
        OPENAI_API_KEYS=",".join(KEYS),
        PROXY_ALLOWED_ORIGINS=f"http://{LISTED}:{site.port}",
        PROXY_ALLOW_OPEN_ADMIN="",
    )
    with running(environ, folder) as up:
        # In a thread: this loop serves the upstream, which health checks probe.
        await asyncio.to_thread(up.wait_until_ready)
        router = f"http://127.0.0.1:{environ['PROXY_ROUTER_PORT']}"
        origins = (up.url.removesuffix("/v1"), router)
        yield Started(*origins, up.database, simulator, browser, site, up)


async def providers(scene: Scene) -> list[Any]:
    store = open_store(scene.database)
    try:
        return list(await RegistryRows(store.fetch).providers())
    finally:
        await store.close()


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
        assert seen[0] == "opaque"  # the request was sent and answered
        assert site.stolen == []
        assert await providers(open_admin) == []

    @pytest.mark.parametrize("host", ["127.0.0.1", "evil.localhost"])
    async def test_reads_and_changes_nothing_under_admin(
        self, open_admin: Scene, host: str
    ) -> None:
        page = await open_admin.page_at(f"http://{host}:{open_admin.site.port}/")
        url = f"{open_admin.origin}/admin/keys"
        kind = {"headers": {"content-type": "application/json"}}
        for script in (sent(url), sent(url, {"name": "mine"}, **kind)):
            assert (await page.run(script))[0] == "error"
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.get(url)).json()["data"] == []

    async def test_may_link_to_the_dashboard(self, open_admin: Scene) -> None:
        page = await open_admin.page_at(
            f"http://evil.localhost:{open_admin.site.port}/"
        )
        await page.follow(open_admin.origin + "/")
        assert await page.run("return location.origin") == open_admin.origin
        await shown(page, "#totals")


class TestDnsRebinding:
    @pytest.mark.parametrize(
        "path", ["/", "/docs", "/admin/state", "/v1/models", "/v1/files"]
    )
    async def test_a_name_that_leads_here_is_answered_nothing(
        self, open_admin: Scene, path: str
    ) -> None:
        rebound = f"http://{REBOUND}:{open_admin.port}"
        # A probe is a page of this origin, so its scripts have this origin too.
        page = await open_admin.page_at(f"{rebound}/healthz")
        kind, status, text = await page.run(sent(rebound + path))
        assert (kind, status) == ("basic", 403)
        assert "host_not_allowed" in text

    async def test_no_script_can_claim_that_a_gateway_checked_it(
        self, open_admin: Scene
    ) -> None:
        rebound = f"http://{REBOUND}:{open_admin.router.rpartition(':')[2]}"
        page = await open_admin.browser.page()
        await page.ignore_policies()  # the router's policy forbids its pages to fetch
        await page.visit(f"{rebound}/healthz")
        claim = {"headers": {CHECKED: "gateway"}}
        kind, status, text = await page.run(sent(f"{rebound}/admin/state", **claim))
        assert (kind, status) == ("basic", 403), text
        assert "host_not_allowed" in text
        # A program can send this header, but gains nothing by it.
        async with httpx.AsyncClient(headers={CHECKED: "gateway"}, timeout=60) as http:
            url = f"{open_admin.router}/admin/state"
            answer = await http.get(url, headers={"host": REBOUND})
            assert answer.status_code == 200

    async def test_nor_does_it_get_a_response(self, open_admin: Scene) -> None:
        rebound = f"http://{REBOUND}:{open_admin.port}"
        page = await open_admin.page_at(f"{rebound}/healthz")
        for path in ("/v1/responses", "/admin/keys"):
            seen = await page.run(sent(rebound + path, ASKED))
            assert seen[:2] == ["basic", 403]
        assert await page.run(socket(f"ws://{REBOUND}:{open_admin.port}")) == "error"


class TestThePagesOfOthersAndV1:
    async def test_one_that_is_not_listed_is_refused(self, with_token: Started) -> None:
        page = await with_token.page_at(
            f"http://evil.localhost:{with_token.site.port}/"
        )
        url, before = f"{with_token.origin}/v1/responses", asked_upstream(with_token)
        assert (await page.run(sent(url, ASKED)))[0] == "error"
        simple = {"mode": "no-cors", "headers": {"content-type": "text/plain"}}
        assert (await page.run(sent(url, ASKED, **simple)))[0] == "opaque"
        assert asked_upstream(with_token) == before
        address = f"ws://127.0.0.1:{with_token.port}"
        assert await page.run(socket(address)) == "error"

    async def test_one_that_is_listed_asks(self, with_token: Started) -> None:
        page = await with_token.page_at(f"http://{LISTED}:{with_token.site.port}/")
        url, before = f"{with_token.origin}/v1/responses", asked_upstream(with_token)
        headers = {
            "content-type": "application/json",
            "authorization": "Bearer anything",
            "x-stainless-lang": "js",
        }
        said = json.dumps({"method": "POST", "headers": headers})
        status, request, resource = await page.run(f"""
            const options = {{ ...{said}, body: {json.dumps(json.dumps(ASKED))} }};
            const answer = await fetch({json.dumps(url)}, options);
            await answer.json();
            const said = (name) => answer.headers.get("x-proxy-" + name);
            return [answer.status, said("request-id"), said("resource-id")];
        """)
        assert status == 200
        assert request
        assert resource.startswith("openai-")
        # The page can also read errors.
        kind, status, text = await page.run(
            sent(url, ASKED, headers={**headers, "x-pool-id": "nowhere"})
        )
        assert (kind, status) == ("cors", 400)
        assert "unknown_pool" in text
        assert asked_upstream(with_token) == before + 1
        address = f"ws://127.0.0.1:{with_token.port}"
        assert await page.run(socket(address)) == "open"


class TestTheLink:
    async def test_logs_in_and_out(self, with_token: Started) -> None:
        page = await with_token.page_at(with_token.link)
        await shown(page, "#totals")
        assert await page.run("return location.href") == with_token.origin + "/"
        await page.run("document.querySelector('#log-out').click()")
        await shown(page, "#token")
        assert await page.run("return sessionStorage.length") == 0
        # The login form accepts the same token.
        typed = json.dumps(with_token.token)
        await page.run(f"""
            document.querySelector("#token-value").value = {typed};
            document.querySelector("#token button").click();
        """)
        await shown(page, "#totals")
        assert await page.run("return location.href") == with_token.origin + "/"

    async def test_without_it_the_page_shows_nothing(self, with_token: Started) -> None:
        page = await with_token.page_at(with_token.origin + "/")
        await shown(page, "#token")
        assert await page.sees("#totals") is None

    async def test_the_page_changes_things_with_it(self, with_token: Started) -> None:
        page = await with_token.page_at(with_token.link)
        await shown(page, "#totals")
        await page.run("location.hash = '#/resources'")
        await shown(page, "#check")
        await page.run("document.querySelector('#check').click()")

        async def checked() -> bool:
            return await page.sees("#check-said") == "All 2 answered."

        await eventually(checked)

    async def test_the_documentation_sends_requests_with_it(
        self, with_token: Started
    ) -> None:
        page = await with_token.page_at(with_token.link)
        await shown(page, "#totals")
        await page.follow(f"{with_token.origin}/docs#/keys/get_admin_keys")
        await shown(page, ".execute")
        await page.run("document.querySelector('.execute').click()")
        await shown(page, ".live-responses-table")
        status = await page.sees("tbody .response-col_status")
        assert (status or "").strip() == "200"

    async def test_the_token_is_in_its_file_only(self, with_token: Started) -> None:
        found = await asyncio.to_thread(places_of, with_token.token, with_token.up)
        assert found == ["admin-token 600"]


async def test_the_page_warns_of_an_open_admin_api(open_admin: Scene) -> None:
    page = await open_admin.page_at(open_admin.origin + "/")
    await shown(page, "#totals")
    assert "PROXY_ALLOW_OPEN_ADMIN" in (await page.sees("#notices") or "")


async def shown(page: Page, selector: str) -> None:
    async def seen() -> bool:
        return await page.sees(selector) is not None

    await eventually(seen)


def places_of(token: str, up: Up) -> list[str]:
    """The files and processes of a product that contain the token."""
    files = written_files(Path(up.data_dir))
    found = [path for path, content in files if token.encode() in content]
    lines = [Path(f"/proc/{pid}/cmdline") for pid in (up.process.pid, *up.children())]
    shown = [f"{path.name} {path.stat().st_mode & 0o777:o}" for path in found]
    return shown + [str(line) for line in lines if token in line.read_text()]


def asked_upstream(scene: Scene) -> int:
    """How many requests for responses the upstream received."""
    entries = scene.simulator.state.journal.shown(None, bodies=False)["entries"]
    return sum(entry["path"] == "/v1/responses" for entry in entries)
