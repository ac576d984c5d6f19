"""Web pages must not use the admin API or /v1 on behalf of a visitor. Each rule is
tested at a gateway's and at a router's port, on bare sockets."""

import asyncio
import json
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from libs.common.store.factory import open_store
from tests.support.clients.pages import ASKED, BOTH, JSON, LISTED, asked, origin, told
from tests.support.clients.raw import Reply, calling
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYS = {"sk-sim-a": "acct-a"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    empty(valkey_server)
    settings = {
        "PROXY_ALLOWED_HOSTS": "proxy.example.com,*.internal.example",
        "PROXY_ALLOWED_ORIGINS": "https://app.example",
        "PROXY_MAX_BODY_BYTES": "100000",
    }
    plan = Plan(KEYS, gateways=1, settings=settings)
    folder = tmp_path_factory.mktemp("browsers")
    store = open_store(f"sqlite:///{folder / 'proxy.sqlite3'}")
    await store.migrate()
    await store.close()
    async with (
        Simulator(KEYS) as simulator,
        running_fleet(plan, simulator, valkey_server, folder) as fleet,
    ):
        yield fleet


class TestAdmin:
    @BOTH
    @pytest.mark.parametrize(
        "path", [b"/", b"/docs", b"/openapi.json", b"/admin/state"]
    )
    @pytest.mark.parametrize(
        "host",
        [
            b"127.0.0.1",
            b"localhost:1",
            b"[::1]",
            b"proxy.example.com",
            b"a.internal.example:80",
        ],
    )
    async def test_answers_to_its_names(
        self, fleet: Fleet, port: str, path: bytes, host: bytes
    ) -> None:
        reply = await asked(origin(fleet, port), b"GET", path, host=host)
        assert reply.status == 200

    @BOTH
    @pytest.mark.parametrize(
        "path", [b"/", b"/docs", b"/openapi.json", b"/admin/state"]
    )
    @pytest.mark.parametrize(
        "host",
        [
            b"evil.example",
            b"evil.example:8000",
            b"10.1.2.3",
            b"0.0.0.0",
            b"router:8001",
        ],
    )
    async def test_answers_to_no_other_name(
        self, fleet: Fleet, port: str, path: bytes, host: bytes
    ) -> None:
        reply = await asked(origin(fleet, port), b"GET", path, host=host)
        assert told(reply) == (403, "host_not_allowed")
        assert b"PROXY_ALLOWED_HOSTS" in reply.body

    @BOTH
    @pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/metrics"])
    async def test_probes_answer_to_any_name(
        self, fleet: Fleet, port: str, path: bytes
    ) -> None:
        reply = await asked(origin(fleet, port), b"GET", path, host=b"10.1.2.3:8000")
        assert reply.status in {200, 503}  # without a database a router has no history
        assert b"sk-sim" not in reply.body

    @BOTH
    @pytest.mark.parametrize(
        "line",
        [
            b"origin: https://evil.example",
            b"origin: https://app.example",  # which may use /v1 only
            b"origin: null",
            b"origin: http://127.0.0.1",
            b"sec-fetch-site: cross-site",
            b"sec-fetch-site: same-site",
        ],
    )
    async def test_serves_no_page_of_others(
        self, fleet: Fleet, port: str, line: bytes
    ) -> None:
        to = origin(fleet, port)
        for method, path, body in (
            (b"GET", b"/admin/state", None),
            (b"GET", b"/dashboard/app.js", None),
            (b"POST", b"/admin/providers/test", b"{}"),
            (b"DELETE", b"/admin/providers/x", None),
        ):
            reply = await asked(to, method, path, line, JSON, body=body)
            assert told(reply) == (403, "origin_not_allowed")
            assert "access-control-allow-origin" not in reply.headers

    @BOTH
    async def test_serves_its_own_pages(self, fleet: Fleet, port: str) -> None:
        to = origin(fleet, port)
        own = b"origin: " + to.encode(), b"sec-fetch-site: same-origin"
        reply = await asked(to, b"GET", b"/admin/state", *own)
        assert reply.status == 200
        reply = await asked(
            to, b"POST", b"/admin/route/explain", *own, JSON, body=b"{}"
        )
        assert reply.status != 403

    @BOTH
    @pytest.mark.parametrize(
        "kind",
        [
            (),
            (b"content-type: text/plain",),
            (b"content-type: application/x-www-form-urlencoded",),
            (b"content-type: multipart/form-data; boundary=x",),
        ],
    )
    async def test_takes_json_only(
        self, fleet: Fleet, port: str, kind: tuple[bytes, ...]
    ) -> None:
        to = origin(fleet, port)
        for path in (b"/admin/providers", b"/admin/keys", b"/admin/health/check"):
            reply = await asked(to, b"POST", path, *kind, body=b"{}")
            assert told(reply) == (415, "unsupported_media_type")

    @BOTH
    @pytest.mark.parametrize(
        "path", [b"/", b"/admin/state", b"/admin/nothing", b"/docs"]
    )
    async def test_answers_are_for_its_own_pages(
        self, fleet: Fleet, port: str, path: bytes
    ) -> None:
        headers = (await asked(origin(fleet, port), b"GET", path)).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"

    async def test_internal_calls_are_not_for_browsers(self, fleet: Fleet) -> None:
        to, path = fleet.router.origin, b"/internal/owners"
        wanted = b'{"ids": []}'
        evil = b"origin: http://evil.example"
        reply = await asked(to, b"POST", path, evil, host=b"evil.example", body=wanted)
        assert told(reply) == (403, "host_not_allowed")
        reply = await asked(to, b"POST", path, host=b"router:8001", body=wanted)
        assert reply.status != 403


class TestApi:
    async def ask(
        self, fleet: Fleet, *lines: bytes, method: bytes = b"POST", **more: bytes
    ) -> Reply:
        path = more.pop("path", b"/v1/responses")
        body = more.pop("body", ASKED) if method == b"POST" else None
        to = fleet.gateways[0].origin
        return await asked(to, method, path, *lines, JSON, body=body, **more)

    @pytest.mark.parametrize("host", [None, b"any.balancer.example", b"10.1.2.3"])
    async def test_programs_are_served_by_any_name(
        self, fleet: Fleet, host: bytes | None
    ) -> None:
        more = {} if host is None else {"host": host}
        reply = await self.ask(fleet, **more)
        assert reply.status == 200
        assert not [name for name in reply.headers if name.startswith("access-control")]

    @pytest.mark.parametrize(
        "line",
        [
            b"origin: https://evil.example",
            b"origin: http://app.example",
            b"origin: null",
            b"origin: http://127.0.0.1:1",
        ],
    )
    async def test_pages_that_are_not_listed_are_refused(
        self, fleet: Fleet, line: bytes
    ) -> None:
        for method in (b"POST", b"OPTIONS", b"GET"):
            wants = b"access-control-request-method: POST"
            reply = await self.ask(fleet, line, wants, method=method)
            assert told(reply) == (403, "origin_not_allowed")
            assert b"PROXY_ALLOWED_ORIGINS" in reply.body
            assert "access-control-allow-origin" not in reply.headers

    async def test_a_page_by_a_name_that_leads_here_is_refused(
        self, fleet: Fleet
    ) -> None:
        host = b"evil.example:8000"
        same = b"origin: http://" + host
        reply = await self.ask(fleet, same, host=host)
        assert told(reply) == (403, "host_not_allowed")
        # The headers of a same-origin GET without encryption.
        line = b"accept-language: en-US,en;q=0.9"
        reply = await self.ask(
            fleet, line, method=b"GET", path=b"/v1/models", host=host
        )
        assert told(reply) == (403, "host_not_allowed")
        line = b"accept-language: *\r\nsec-fetch-mode: cors"  # Node
        reply = await self.ask(
            fleet, line, method=b"GET", path=b"/v1/models", host=host
        )
        assert reply.status == 200

    async def test_listed_origins_may_read_every_answer(self, fleet: Fleet) -> None:
        streamed = b'{"model": "gpt-5.5", "input": "Say hello", "stream": true}'
        for status, more in (
            (200, {}),
            (200, {"body": streamed}),
            (200, {"host": b"proxy.elsewhere.example"}),
            (404, {"path": b"/v1/a%2fb"}),
            (413, {"body": b"x" * 100_001}),
        ):
            reply = await self.ask(fleet, LISTED, **more)
            assert reply.status == status
            assert reply.headers["access-control-allow-origin"] == "https://app.example"
            exposed = reply.headers["access-control-expose-headers"].split(", ")
            assert {"x-proxy-request-id", "x-request-id"} <= set(exposed)
            assert "access-control-allow-credentials" not in reply.headers
            assert reply.headers["vary"] == "Origin"

    async def test_listed_origins_may_ask_before_they_send(self, fleet: Fleet) -> None:
        reply = await self.ask(
            fleet,
            LISTED,
            b"access-control-request-method: POST",
            b"access-control-request-headers: authorization,x-stainless-os",
            method=b"OPTIONS",
        )
        assert (reply.status, reply.body) == (204, b"")
        allowed = "access-control-allow-"
        assert reply.headers[f"{allowed}origin"] == "https://app.example"
        assert "POST" in reply.headers[f"{allowed}methods"]
        assert reply.headers[f"{allowed}headers"] == "authorization,x-stainless-os"

    @pytest.mark.parametrize(
        ("line", "host", "status"),
        [
            (b"x-no: origin", b"any.example", 101),
            (LISTED, b"any.example", 101),
            (b"origin: https://evil.example", b"127.0.0.1", 403),
            (b"origin: http://evil.example", b"evil.example", 403),
            (b"origin: null", b"127.0.0.1", 403),
        ],
    )
    async def test_sockets(
        self, fleet: Fleet, line: bytes, host: bytes, status: int
    ) -> None:
        head = [
            b"GET /v1/responses HTTP/1.1",
            b"host: " + host,
            line,
            b"connection: upgrade",
            b"upgrade: websocket",
            b"sec-websocket-version: 13",
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        async with calling(fleet.gateways[0].origin) as caller:
            await caller.send(b"\r\n".join([*head, b"", b""]))
            assert (await caller.reply()).status == status


ODD = (
    b"%0d%0a", b"%0D%0AX-A:%20b", b"%00", b"%1b[0m", b"%7f", b"%", b"%z", b"%f",
    b"%%", b"\xff", b"\xc3\xbc", b"%ff", b"%c3%28", b"%ed%a0%80", b"..", b"%2e%2e",
    b".", b"//", b"\\", b";", b"#", b"%23", b"?", b"%3f", b"@", b":", b"[", b"{x}",
    b"|", b"'", b"%25", b"%2525", b"+", b"~", b"a" * 300, b"*",
)  # fmt: skip


class TestOddPaths:
    """`/admin/%0d%0a…` once gave 500 with a traceback."""

    @BOTH
    @pytest.mark.parametrize(
        "path",
        [
            b"/admin/%0d%0aX-Injected:%201",
            b"/admin/%00",
            b"/admin/keys/%0d%0a",
            b"/admin/models/a%0d%0ab",
            b"/admin/%7f",
            b"/dashboard/%0d%0a",
        ],
    )
    async def test_control_characters_lead_nowhere(
        self, fleet: Fleet, port: str, path: bytes
    ) -> None:
        reply = await asked(origin(fleet, port), b"GET", path)
        assert reply.status == 404
        assert port == "router" or reply.code == "unknown_route"
        assert "x-injected" not in reply.headers

    @BOTH
    async def test_none_breaks_the_server(self, fleet: Fleet, port: str) -> None:
        to, chance = origin(fleet, port), random.Random(20)  # noqa: S311
        for _ in range(400):
            parts = [chance.choice(ODD) for _ in range(chance.randint(1, 4))]
            begins = chance.choice((b"/admin/", b"/admin/keys/", b"/dashboard/", b"/"))
            path = begins + b"/".join(parts)
            if chance.random() < 0.3:
                path += b"?" + chance.choice(ODD)
            reply = await asked(to, b"GET", path)
            assert reply.status < 500, path
            # The router's server rejects invalid HTTP itself, without a body.
            if reply.status >= 400 and (port == "gateway" or reply.body):
                assert set(json.loads(reply.body)["error"]) == {
                    "message",
                    "type",
                    "param",
                    "code",
                }
        member = fleet.router if port == "router" else fleet.gateways[0]
        log = await asyncio.to_thread(member.process.log.read_text)
        assert "Traceback" not in log
        assert '"level": "error"' not in log
