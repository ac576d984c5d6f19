"""The router as a process, on a real Redis-compatible server and SQLite."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.common.contracts.catalogue import Catalogue
from libs.common.contracts.events import encode
from libs.common.contracts.verdicts import Verdict
from libs.common.errors import NoCatalogue
from libs.common.redis import keys
from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, digest
from libs.common.store.factory import open_store
from services.router.admin.schemas import explain as explain_schemas
from services.router.admin.schemas import state as state_schemas
from tests.support.clients.scrapes import Scraped
from tests.support.databases.valkey import empty, running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, granian, running
from tests.support.processes.waiting import eventually
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    request_event,
    streamed,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
STREAM = "telemetry:events"
TOKEN = "correct-horse-battery"
RESOURCES = [f"openai-{number}" for number in range(1, 5)]


@dataclass
class Standing:
    """A running router with its Redis and database."""

    http: httpx.AsyncClient
    redis: Redis
    routing: RoutingFunctions
    process: Process
    database: str

    async def state(self) -> dict[str, Any]:
        return await self._get("/admin/state")

    async def ledger(self) -> dict[str, Any]:
        return await self._get("/admin/ledger")

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200
        return dict(answer.json())

    async def whole(self) -> bool:
        """Whether all resources are in Redis."""
        state = await self.state()
        ids = [resource["id"] for resource in state["resources"]]
        return ids == RESOURCES and not any("redis" in d for d in state["degraded"])

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """The stream's events of a kind, oldest first."""
        entries: Any = await self.redis.xrange(STREAM)
        wanted = kind.encode()
        return [json.loads(f[b"data"]) for _, f in entries if f[b"kind"] == wanted]

    async def empty_redis(self) -> None:
        await self.redis.flushall()
        await self.redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]


MINTED = "resp_of_request_2"
REFUSED = Verdict(kind="refused", cause="401 invalid_api_key")


def environ(valkey: str, port: int, database: str, **more: str) -> dict[str, str]:
    return {
        "PROXY_REDIS_URL": valkey,
        "PROXY_ROUTER_PORT": str(port),
        "PROXY_SQLITE_URL": database,
        "PROXY_UPSTREAM_BASE_URL": "http://127.0.0.1:9/v1",
        "PROXY_GATEWAY_SILENCE_SECONDS": "60",
        "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": "1",
        "OPENAI_API_KEYS": "sk-1,sk-2,sk-3,sk-4",
        **more,
    }


@asynccontextmanager
async def router(
    valkey: str, folder: Path, probe: str = "readyz", **more: str
) -> AsyncIterator[Standing]:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    database = f"sqlite:///{folder}/proxy.sqlite3"
    process = Process(
        granian("services.router.app:create_app", port),
        # A checkout that was used has a token in its own data directory.
        environ(valkey, port, database, **{"PROXY_DATA_DIR": str(folder), **more}),
        folder / "router.log",
    )
    redis = connect(valkey)
    routing = RoutingFunctions(ClientCaller(redis), STREAM)
    try:
        with running(process, f"{origin}/{probe}"):
            async with httpx.AsyncClient(base_url=origin, timeout=10) as http:
                yield Standing(http, redis, routing, process, database)
    finally:
        await redis.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    empty(valkey_server)
    async with router(valkey_server, tmp_path_factory.mktemp("router")) as standing:
        await fill(standing.database)
        yield standing


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(standing: Standing) -> Standing:
    """The router, once it has filled an emptied Redis."""
    await standing.empty_redis()
    await eventually(standing.whole)
    return standing


async def fill(database: str) -> None:
    """Three requests of two sessions, one with two attempts."""
    store = open_store(database)
    await store.migrate()
    events = []
    for number in range(3):
        at = T0_MS + number * 1000
        request = request_event(
            f"req-{number}",
            created_at_ms=at,
            completed_at_ms=at + 500,
            session_id=f"session-{number % 2}",
            resource_id=f"openai-{number + 1}",
            total_tokens=10,
            minted=(MINTED,) if number == 2 else (),
        )
        events.append(streamed(request))
        for attempt in range(1, 3 if number == 2 else 2):
            decision = decision_event(
                request.id, attempt=attempt, created_at_ms=at + attempt
            )
            events.append(streamed(decision, f"decision-{number}-{attempt}"))
    await store.write(events)
    await store.close()


def error(answer: httpx.Response) -> str:
    body = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return str(body["code"])


async def acquired(
    routing: RoutingFunctions, request_id: str, session: str, gateway: str = "gw-1"
) -> str:
    """Where the gateway has its lease."""
    ask = Ask(
        request_id=request_id,
        decision_id=f"decision-{request_id}",
        attempt=1,
        gateway_id=gateway,
        pool_id=None,
        session_id=session,
        session=digest(session),
        model="",
        bound=(),
        account_bound=False,
        tried=(),
        previous="",
        lease=json.dumps(
            {
                "id": request_id,
                "created_at_ms": T0_MS,
                "method": "POST",
                "path": "/v1/responses",
                "gateway_id": gateway,
            }
        )
        .encode()
        .removesuffix(b"}"),
        draw=0,
    )
    return (await routing.acquire(ask)).resource_id


class TestPublishing:
    @pytest.mark.alone
    async def test_four_resources_are_back_within_5_s_of_an_emptied_redis(
        self, proxy: Standing
    ) -> None:
        before = await proxy.routing.catalogue()
        await proxy.empty_redis()
        emptied_at = monotonic()

        async def back() -> Catalogue | None:
            kept = await proxy.redis.exists("{rpx}:catalogue")
            return await proxy.routing.catalogue() if kept else None

        async def routed() -> str | None:
            # If it published between the two flushes, the library is lost again.
            with suppress(NoCatalogue):
                return await acquired(proxy.routing, "req-a", "s")
            return None

        assert await eventually(back) == before
        assert await eventually(routed)
        assert monotonic() - emptied_at < 5

    async def test_a_lost_library_is_loaded_again(self, proxy: Standing) -> None:
        await proxy.redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]
        await eventually(proxy.whole)

    async def test_a_foreign_catalogue_is_replaced(self, proxy: Standing) -> None:
        await proxy.routing.publish(Catalogue(version="other", resources=()), "e1")
        await eventually(proxy.whole)

    async def test_a_registry_event_tells_of_it(self, proxy: Standing) -> None:
        assert (await proxy.told("registry"))[-1]["resources"] == RESOURCES


class TestReaping:
    async def test_a_silent_gateways_leases_end_and_no_others(
        self, proxy: Standing
    ) -> None:
        await acquired(proxy.routing, "req-lost", "s", gateway="gw-silent")
        await acquired(proxy.routing, "req-kept", "s", gateway="gw-beating")
        assert await proxy.routing.in_flight() == 2
        await proxy.routing.heartbeat("gw-beating")
        await proxy.routing.heartbeat("gw-silent")
        await proxy.redis.zincrby(keys.gateways(), -61_000, "gw-silent")

        async def gone() -> bool:
            return await proxy.routing.in_flight() == 1

        await eventually(gone)
        told = await proxy.told("request")
        assert [(e["id"], e["outcome"]) for e in told] == [("req-lost", "interrupted")]


class TestState:
    async def test_it_shows_what_is_going_on(self, proxy: Standing) -> None:
        taken = await acquired(proxy.routing, "req-now", "s")
        state = await proxy.state()
        state_schemas.AdminState.model_validate(state)
        in_flight = {r["id"]: r["in_flight"] for r in state["resources"]}
        assert in_flight == {id_: int(id_ == taken) for id_ in RESOURCES}
        # One registry event, one decision.
        assert state["queue_depth"] == 2
        assert state["ledger"] == {
            "accepted": 4,
            "stored": 3,
            "pending": 0,
            "in_flight": 1,
            "dead_lettered": 0,
            "balanced": True,
            "problems": [],
            "unverified": [],
        }
        assert [d["request_id"] for d in state["decisions"]] == [
            "req-2",
            "req-2",
            "req-1",
            "req-0",
        ]
        assert (state["admin"], state["degraded"]) == ("open", [])

    async def test_the_stream_follows_it(self, proxy: Standing) -> None:
        async with proxy.http.stream("GET", "/admin/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            states = _states(answer)

            async def seen(in_flight: int) -> bool:
                return bool((await anext(states))["ledger"]["in_flight"] == in_flight)

            # The first state may be half a second old, of another test.
            await eventually(lambda: seen(0))
            await acquired(proxy.routing, "req-now", "s")
            await eventually(lambda: seen(1))

    async def test_changes_follow_the_first_state(self, proxy: Standing) -> None:
        async with proxy.http.stream("GET", "/admin/events?changes=true") as answer:
            states = _states(answer)
            first = await anext(states)
            assert [len(first[name]) for name in ("resources", "requests")] == [4, 3]
            told = [each["subject"] for each in first["attention"]]
            assert told == ["health"]  # none runs here
            assert "candidates" not in first["decisions"][0]
            taken: list[str] = []

            async def seen() -> bool:
                """A client of another test may watch for another second: then this one
                may miss a tick, and gets the whole state."""
                id_ = f"req-{len(taken)}"
                taken.append(await acquired(proxy.routing, id_, "s"))
                changed = await anext(states)
                told = {r["id"] for r in changed.get("resources", ())}
                return len(changed) < len(first) and bool(told) and told <= {*taken}

            await eventually(seen)


class TestAttention:
    async def test_a_sick_resource_and_a_gateways_disk(self, proxy: Standing) -> None:
        refused = Verdict(kind="refused", cause="401")
        await proxy.routing.verdict("openai-2", refused)
        books = gateway_event("gw-1", accepted=0, ended=0)

        async def told() -> bool:
            await proxy.routing.heartbeat("gw-1", encode(books))
            await proxy.redis.set(keys.impaired("gw-1"), "journal", px=5_000)
            found = (await proxy.http.get("/admin/attention")).json()["data"]
            return [(each["kind"], each["subject"]) for each in found] == [
                ("degraded", "health"),  # none runs here
                ("degraded", "journal of gateway gw-1"),
                ("resource_unhealthy", "openai-2"),
            ]

        await eventually(told)


class TestCharts:
    async def test_nothing_happened_lately(self, proxy: Standing) -> None:
        for window, count in (("hour", 60), ("day", 96), ("week", 168)):
            answer = await proxy.http.get(f"/admin/charts?window={window}&team_id=t")
            chart = answer.json()
            assert chart["series"]["requests"] == [0] * count
            assert chart["series"]["latency_p50_ms"] == [None] * count


async def _states(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


class TestLedger:
    async def test_it_adds_up_for_each_gateway_and_in_sum(
        self, proxy: Standing
    ) -> None:
        books = gateway_event("gw-1", accepted=6, ended=5, held=5)
        report = encode(books)
        await proxy.routing.heartbeat("gw-1", report)
        ledger = await proxy.ledger()
        state_schemas.WholeLedger.model_validate(ledger)
        told = {k: ledger[k] for k in ("accepted", "stored", "pending", "in_flight")}
        assert told == {"accepted": 9, "stored": 3, "pending": 5, "in_flight": 1}
        assert (ledger["balanced"], ledger["problems"]) == (True, [])
        gateway = {g["id"]: g for g in ledger["gateways"]}["gw-1"]
        assert (gateway["state"], gateway["held"]) == ("running", 5)

    async def test_a_request_that_was_stored_and_is_gone_is_told(
        self, proxy: Standing
    ) -> None:
        books = gateway_event("gw-2", accepted=5, ended=5, held=4)
        await proxy.routing.heartbeat("gw-2", encode(books))
        ledger = await proxy.ledger()
        assert ledger["balanced"] is False
        assert ledger["problems"] == ["gw-2: 1 stored requests are gone"]
        assert (await proxy.state())["ledger"]["balanced"] is False


class TestHistory:
    async def test_pages_continue_by_cursor(self, proxy: Standing) -> None:
        seen: list[str] = []
        cursor = ""
        for _ in range(3):
            answer = await proxy.http.get(
                "/admin/requests", params={"limit": 1, "cursor": cursor}
            )
            page = answer.json()
            seen += [row["id"] for row in page["data"]]
            cursor = page["next_cursor"] or ""
        assert (seen, cursor) == (["req-2", "req-1", "req-0"], "")

    @pytest.mark.parametrize(
        ("path", "key", "expected"),
        [
            ("requests?session_id=session-0", "id", ["req-2", "req-0"]),
            ("requests?resource_id=openai-2", "id", ["req-1"]),
            ("requests?request_id=req-0", "id", ["req-0"]),
            ("decisions?request_id=req-2", "id", ["decision-2-2", "decision-2-1"]),
            ("sessions", "id", ["session-0", "session-1"]),
            ("sessions?session_id=session-1", "requests", [1]),
            ("requests?session_id=nobody", "id", []),
            ("requests?status=5xx", "id", []),
            (
                (
                    "requests?outcome=completed&from=2023-11-14T22:13:21.123Z"
                    "&to=2023-11-14T22:13:22.123Z"
                ),
                "id",
                ["req-1"],
            ),
            ("decisions?reason=panic", "id", []),
        ],
    )
    async def test_filters(
        self, proxy: Standing, path: str, key: str, expected: list[Any]
    ) -> None:
        answer = await proxy.http.get(f"/admin/{path}")
        assert [row[key] for row in answer.json()["data"]] == expected

    @pytest.mark.parametrize("table", ["sessions", "requests", "decisions"])
    async def test_rows_have_the_columns_that_openapi_tells_of(
        self, proxy: Standing, table: str
    ) -> None:
        rows = (await proxy.http.get(f"/admin/{table}")).json()["data"]
        document = (await proxy.http.get("/openapi.json")).json()
        name = f"{table.removesuffix('s').title()}Row"
        described = document["components"]["schemas"][name]["properties"]
        assert set(rows[0]) == set(described)

    async def test_one_request_with_its_decisions(self, proxy: Standing) -> None:
        row = (await proxy.http.get("/admin/requests/req-2")).json()
        assert row["created_at"] == "2023-11-14T22:13:22.123Z"
        assert [d["attempt"] for d in row["decisions"]] == [1, 2]
        passed_over = row["decisions"][0]["candidates"][1]
        assert passed_over["refused"] == "cooling down"
        assert passed_over["why"] == {"code": "cooling_down", "until_ms": None}
        assert (row["timeline"]["received_ms"], row["cost_usd"]) == (0, None)

    async def test_an_unknown_request(self, proxy: Standing) -> None:
        answer = await proxy.http.get("/admin/requests/nobody")
        assert (answer.status_code, error(answer)) == (404, "request_not_found")


class TestExplain:
    async def explain(self, proxy: Standing, **asked: Any) -> Any:
        answer = await proxy.http.post("/admin/route/explain", json=asked)
        assert answer.status_code == 200, answer.text
        explain_schemas.Explained.model_validate(answer.json())
        return answer.json()

    async def keys(self, proxy: Standing) -> list[bytes]:
        """Of Redis, without those of the router's leaderships, which come and go."""
        found: Any = await proxy.redis.keys()
        return sorted(key for key in found if b":leader:" not in key)

    async def test_it_tells_where_and_why_without_effects(
        self, proxy: Standing
    ) -> None:
        await proxy.routing.verdict("openai-2", REFUSED)
        before = await proxy.redis.xlen(STREAM), await self.keys(proxy)
        said = await self.explain(
            proxy, headers={"X-Session-ID": "s"}, body={"model": "gpt-5.5"}
        )
        assert said["status"] == "ok"
        assert said["reason"] == "weighted_least_connections"
        assert said["resource_id"] in RESOURCES
        assert said["hints"]["session_id"] == "s"
        refused = {c["resource"]: c["refused"] for c in said["candidates"]}
        assert refused == dict.fromkeys(RESOURCES) | {
            "openai-2": "key refused by the upstream"
        }
        assert await proxy.routing.in_flight() == 0
        assert before == (await proxy.redis.xlen(STREAM), await self.keys(proxy))

    async def test_ids_are_looked_for_in_sql(self, proxy: Standing) -> None:
        said = await self.explain(
            proxy, body={"model": "m", "previous_response_id": MINTED}
        )
        assert said["looked_up_in_sql"]
        assert (said["resource_id"], said["reason"]) == (
            "openai-3",
            "response_affinity",
        )
        others = {
            c["refused"] for c in said["candidates"] if c["resource"] != "openai-3"
        }
        assert others == {"another account"}

    async def test_an_owner_that_is_gone(self, proxy: Standing) -> None:
        await proxy.routing.verdict("openai-3", REFUSED)
        said = await self.explain(proxy, method="GET", path=f"/v1/responses/{MINTED}")
        assert (said["status"], said["resource_id"]) == ("owner_gone", None)

    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            pytest.param(b"{", "invalid_request", id="no JSON"),
            pytest.param(b'{"method":"BREW"}', "invalid_request", id="no method"),
            pytest.param(b'{"headers":{"a":1}}', "invalid_request", id="no header"),
            pytest.param(b"x" * 1_100_000, "body_too_large", id="too large"),
            pytest.param(
                b'{"headers":{"x-pool-id":"nope"}}', "unknown_pool", id="no pool"
            ),
        ],
    )
    async def test_nonsense(self, proxy: Standing, asked: bytes, code: str) -> None:
        answer = await proxy.http.post(
            "/admin/route/explain",
            content=asked,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == (413 if code == "body_too_large" else 400)
        assert error(answer) == code


class TestPages:
    @pytest.mark.parametrize(
        ("path", "content_type"),
        [
            ("/", "text/html"),
            ("/docs", "text/html"),
            ("/dashboard/app.js", "text/javascript"),
            ("/dashboard/views/overview.js", "text/javascript"),
            ("/dashboard/style.css", "text/css"),
            ("/favicon.ico", "image/svg+xml"),
            ("/openapi.json", "application/json"),
            ("/healthz", "application/json"),
            ("/metrics", "text/plain"),
        ],
    )
    async def test_content_types(
        self, proxy: Standing, path: str, content_type: str
    ) -> None:
        answer = await proxy.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(content_type)

    @pytest.mark.parametrize("path", ["/", "/docs"])
    async def test_pages_forbid_other_hosts(self, proxy: Standing, path: str) -> None:
        policy = (await proxy.http.get(path)).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy

    async def test_metrics_tell_of_each_resource(self, proxy: Standing) -> None:
        text = (await proxy.http.get("/metrics")).text
        assert 'proxy_resource_in_flight{resource="openai-4"} 0.0' in text

    async def test_what_is_impaired_is_logged_and_measured(
        self, proxy: Standing
    ) -> None:
        """Here no health service and no ingest run. Then the upstream refuses all
        keys."""
        an_hour_ago = int(time() * 1000) - 3_600_000
        event: dict[Any, Any] = {"kind": "health", "id": "x", "v": 1, "data": "{}"}
        await proxy.redis.delete(STREAM)
        await proxy.redis.xadd(STREAM, event, id=f"{an_hour_ago}-1")
        for id_ in RESOURCES:
            await proxy.routing.verdict(id_, REFUSED)

        async def told() -> bool:
            found = Scraped((await proxy.http.get("/metrics")).text)
            return all(
                found.value("proxy_degraded", part=part)
                for part in ("health", "ingest", "resources")
            )

        await eventually(told)  # HealthChecksStopped
        for part in ("health", "ingest", "resources"):
            assert proxy.process.logged("degraded_began", part=part)
        found = Scraped((await proxy.http.get("/metrics")).text)
        assert found.value("proxy_queue_oldest_seconds") >= 3_600  # NotStored
        assert found.value("proxy_resource_available") == 0  # NoResource
        assert found.value("proxy_ledger_balanced") == 1

    async def test_an_unknown_route(self, proxy: Standing) -> None:
        answer = await proxy.http.get("/nothing")
        assert (answer.status_code, error(answer)) == (404, "unknown_route")

    async def test_a_check_without_a_health_service(self, proxy: Standing) -> None:
        answer = await proxy.http.post("/admin/health/check", json={})
        assert (answer.status_code, error(answer)) == (503, "health_unreachable")
        assert (
            await proxy.redis.exists("{rpx}:checks") == 0
        )  # no later health service finds it


class TestToken:
    async def test_only_its_holder_gets_in(self, valkey: str, tmp_path: Path) -> None:
        async with router(valkey, tmp_path, PROXY_ADMIN_TOKEN=TOKEN) as proxy:
            for path in ("state", "events", "requests", "nothing"):
                answer = await proxy.http.get(f"/admin/{path}")
                assert (answer.status_code, error(answer)) == (
                    401,
                    "invalid_admin_token",
                )
            for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
                assert (await proxy.http.get(path)).status_code == 200
            proxy.http.headers["authorization"] = f"Bearer {TOKEN}"
            assert (await proxy.state())["admin"] == "token"

    async def test_beyond_loopback_it_is_not_open_either(
        self, valkey: str, tmp_path: Path
    ) -> None:
        beyond = {"PROXY_HOST": "0.0.0.0", "PROXY_ALLOW_OPEN_ADMIN": ""}
        async with router(valkey, tmp_path, **beyond) as proxy:
            answer = await proxy.http.get("/admin/state")
            assert (answer.status_code, error(answer)) == (503, "admin_token_unknown")
            await fill(proxy.database)

            async def asked_for() -> bool:
                return (await proxy.http.get("/admin/state")).status_code == 401

            await eventually(asked_for)


class TestTrouble:
    async def test_a_redis_that_comes_late_and_goes(self, tmp_path: Path) -> None:
        port = free_port()
        url = f"redis://127.0.0.1:{port}/0"
        async with router(url, tmp_path, probe="healthz") as proxy:
            answer = await proxy.http.get("/readyz")
            assert answer.status_code == 503
            assert "redis" in answer.json()["degraded"][0]
            with running_valkey(tmp_path, port):
                await eventually(proxy.whole)
                assert (await proxy.http.get("/readyz")).status_code == 200
            state = await proxy.state()
            assert [r["health"] for r in state["resources"]] == ["unknown"] * 4
            assert "redis" in state["degraded"][0]

            async def unready() -> bool:
                return (await proxy.http.get("/readyz")).status_code == 503

            await eventually(unready)

            async def told() -> bool:
                found = Scraped((await proxy.http.get("/metrics")).text)
                impaired = found.value("proxy_degraded", part="redis")
                return (found.value("proxy_redis_up"), impaired) == (0, 1)

            await eventually(told)  # RedisDown
            assert proxy.process.logged("degraded_began", part="redis")
            with running_valkey(tmp_path, port):
                await eventually(proxy.whole)

    async def test_without_a_database_it_goes_on(
        self, valkey: str, tmp_path: Path
    ) -> None:
        lost = f"sqlite:///{tmp_path}"  # a directory, which cannot be a database
        async with router(valkey, tmp_path, PROXY_SQLITE_URL=lost) as proxy:
            answer = await proxy.http.get("/readyz")
            assert answer.status_code == 200
            assert "database" in answer.json()["degraded"][0]
            answer = await proxy.http.get("/admin/requests")
            assert (answer.status_code, error(answer)) == (503, "database_unreachable")
            assert "database" in (await proxy.state())["degraded"][0]

            async def told() -> bool:
                found = Scraped((await proxy.http.get("/metrics")).text)
                impaired = found.value("proxy_degraded", part="database")
                return (found.value("proxy_sql_up"), impaired) == (0, 1)

            await eventually(told)  # DatabaseDown
            assert proxy.process.logged("degraded_began", part="database")

    async def test_it_ends_at_once_with_streams_open(self, tmp_path: Path) -> None:
        with running_valkey(tmp_path) as valkey:
            async with router(valkey, tmp_path) as proxy:
                async with proxy.http.stream("GET", "/admin/events") as answer:
                    states = _states(answer)
                    await anext(states)
                    assert await asyncio.to_thread(proxy.process.end) == 0
                    # One each second. Granian would wait ten seconds for the stream.
                    assert len([state async for state in states]) < 5
                # A successor need not wait for the lease to expire.
                assert not await proxy.redis.exists("{rpx}:leader:router")
