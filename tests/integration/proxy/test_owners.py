"""`POST /internal/owners`: to a router process with a slow or absent database, and
refused by the gateway."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import falcon.asgi
import httpx
import pytest
import pytest_asyncio
from falcon import testing

from libs.common.errors import ProxyError, StoreAway
from libs.common.routing.types import Owner
from libs.common.store.factory import open_store
from services.router import owners
from services.router.errors import say
from services.router.owners import BODY_BYTES_MAX, IDS_MAX, Owners
from tests.support.databases.valkey import empty
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, granian, running
from tests.support.processes.stack import gateway_stack
from tests.support.values.telemetry import stored_request

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/internal/owners"
SERVED = {"resource_id": "openai-1", "account_id": "acct-a"}
MINE = {**SERVED, "tenant": ""}
NOBODY: dict[str, Any] = {"ids": {}, "session": None}


def error(answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer.text)["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return told


@asynccontextmanager
async def router(
    valkey: str, folder: Path, database: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a router that requires a token for /admin."""
    port = free_port()
    env = {
        "PROXY_REDIS_URL": valkey,
        "PROXY_SQLITE_URL": database,
        "PROXY_ADMIN_TOKEN": "correct-horse-battery",
        "OPENAI_API_KEYS": "sk-1,sk-2",
    }
    command = granian("services.router.app:create_app", port)
    origin = f"http://127.0.0.1:{port}"
    with running(Process(command, env, folder / "router.log"), f"{origin}/readyz"):
        async with httpx.AsyncClient(base_url=origin, timeout=60) as http:
            yield http


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("owners")
    database = f"sqlite:///{folder}/proxy.sqlite3"
    store = open_store(database)
    await store.migrate()
    served = {"session_id": "session", **SERVED}
    await store.write([stored_request(minted=("resp_1", "conv_1"), **served)])
    await store.close()
    async with router(valkey_server, folder, database) as client:
        yield client


class TestRouter:
    async def test_tells_owners_of_ids_and_session_without_a_token(
        self, http: httpx.AsyncClient
    ) -> None:
        lookup = {"ids": ["resp_1", "resp_2", "conv_1"], "session_id": "session"}
        answer = await http.post(PATH, json=lookup)
        assert answer.status_code == 200
        assert answer.json() == {
            "ids": {"resp_1": MINE, "conv_1": MINE},
            "session": MINE,
        }

    @pytest.mark.parametrize(
        "lookup",
        [
            pytest.param({}, id="nothing asked"),
            pytest.param({"ids": [], "session_id": None}, id="neither"),
            pytest.param({"ids": ["resp_2"], "session_id": "other"}, id="unknown"),
            pytest.param({"ids": ["a\0b"], "session_id": "\0"}, id="NUL"),
            pytest.param({"ids": ["'; DROP TABLE minted_ids"]}, id="SQL"),
            pytest.param({"ids": ["\U0001f600" * 512] * IDS_MAX}, id="as much as fits"),
            pytest.param({"ids": ["resp_2"], "hint": 1}, id="from a newer gateway"),
        ],
    )
    async def test_what_is_unknown_is_left_out(
        self, http: httpx.AsyncClient, lookup: dict[str, Any]
    ) -> None:
        answer = await http.post(PATH, content=json.dumps(lookup))
        assert (answer.status_code, answer.json()) == (200, NOBODY)

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            pytest.param(b"", None, id="empty"),
            pytest.param(b"{", None, id="no JSON"),
            pytest.param(b"[]", None, id="a list"),
            pytest.param(b'{"ids": null}', "ids", id="null"),
            pytest.param(b'{"ids": "resp_1"}', "ids", id="one id"),
            pytest.param(b'{"ids": ["resp_1", 7]}', "ids.1", id="a number"),
            pytest.param(b'{"ids": ["\\ud800"]}', None, id="lone surrogate"),
            pytest.param(b'{"ids": ["\xff"]}', None, id="not UTF-8"),
            pytest.param(b'{"session_id": 7}', "session_id", id="session"),
            pytest.param(
                json.dumps({"ids": ["x"] * (IDS_MAX + 1)}).encode(), "ids", id="many"
            ),
            pytest.param(json.dumps({"ids": ["x" * 513]}).encode(), "ids.0", id="long"),
        ],
    )
    async def test_nonsense_is_refused(
        self, http: httpx.AsyncClient, body: bytes, param: str | None
    ) -> None:
        answer = await http.post(PATH, content=body)
        assert answer.status_code == 400
        told = error(answer)
        assert (told["code"], told["param"]) == ("invalid_request", param)
        assert told["type"] == "invalid_request_error"

    async def test_a_body_that_is_too_large(self, http: httpx.AsyncClient) -> None:
        answer = await http.post(PATH, content=b" " * (BODY_BYTES_MAX + 1))
        assert (answer.status_code, error(answer)["code"]) == (413, "body_too_large")

    async def test_is_asked_by_post_only(self, http: httpx.AsyncClient) -> None:
        answer = await http.get(PATH)
        assert answer.status_code == 405
        assert error(answer)["code"] == "method_not_allowed"

    async def test_many_at_once_are_all_told(self, http: httpx.AsyncClient) -> None:
        lookup = {"ids": ["resp_1"], "session_id": "session"}
        answers = await asyncio.gather(
            *(http.post(PATH, json=lookup) for _ in range(100))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert all(answer.json()["session"] == MINE for answer in answers)

    async def test_without_a_database_says_so(
        self, valkey_server: str, tmp_path: Path
    ) -> None:
        folder = f"sqlite:///{tmp_path}"  # a directory, which cannot be a database
        async with router(valkey_server, tmp_path, folder) as http:
            for lookup in ({"ids": ["resp_1"]}, {"session_id": "session"}):
                answer = await http.post(PATH, json=lookup)
                assert answer.status_code == 503
                assert error(answer)["code"] == "database_unreachable"


class Slow:
    """A store that knows every id, and answers when the test lets it."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.waits = asyncio.Event()
        self.asked = 0

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        self.asked += 1
        if self.asked == 1:
            self.waits.set()
            await self.let.wait()
        return dict.fromkeys(ids, Owner(**MINE))

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        raise StoreAway


class TestDatabase:
    @pytest_asyncio.fixture(loop_scope="module")
    async def asked(self) -> AsyncIterator[tuple[Slow, testing.ASGIConductor]]:
        app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
        for kind in (Exception, ProxyError, falcon.HTTPError):
            app.add_error_handler(kind, say)
        store = Slow()
        app.add_route(PATH, Owners(store))
        async with testing.ASGIConductor(app) as conductor:
            yield store, conductor

    async def test_a_slow_lookup_holds_no_other_up(
        self, asked: tuple[Slow, testing.ASGIConductor]
    ) -> None:
        store, conductor = asked
        lookup = {"json": {"ids": ["resp_1"]}}
        slow = asyncio.create_task(conductor.simulate_post(PATH, **lookup))
        await asyncio.wait_for(store.waits.wait(), 60)
        quick = await conductor.simulate_post(PATH, **lookup)
        assert quick.json["ids"] == {"resp_1": MINE}
        assert not slow.done()
        store.let.set()
        assert (await slow).status_code == 200

    async def test_one_that_does_not_answer_is_away(
        self,
        asked: tuple[Slow, testing.ASGIConductor],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(owners, "PATIENCE_S", 0.01)
        _, conductor = asked
        answer = await conductor.simulate_post(PATH, json={"ids": ["resp_1"]})
        assert answer.status_code == 503
        assert error(answer)["code"] == "database_unreachable"

    async def test_half_an_answer_is_none(
        self, asked: tuple[Slow, testing.ASGIConductor]
    ) -> None:
        store, conductor = asked
        store.let.set()
        lookup = {"ids": ["resp_1"], "session_id": "session"}
        answer = await conductor.simulate_post(PATH, json=lookup)
        assert answer.status_code == 503


async def status_of(origin: str, path: str) -> int:
    """The status of a POST to exactly this `path`, which HTTP clients would
    normalize."""
    host, _, port = origin.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n"
    writer.write(head.encode() + b"content-type: application/json\r\n\r\n{}")
    line = await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(
    valkey_server: str,
    http: httpx.AsyncClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[str]:
    """The origin of a gateway in front of this module's router."""
    folder = tmp_path_factory.mktemp("gateway")
    env = {"PROXY_ROUTER_URL": str(http.base_url).rstrip("/")}
    async with gateway_stack(valkey_server, folder, **env) as stack:
        yield stack.origin


class TestGateway:
    async def test_leads_to_the_router(self, origin: str) -> None:
        assert await status_of(origin, "/admin/state") in {401, 405}

    @pytest.mark.parametrize(
        "path",
        [
            PATH,
            f"/{PATH}",
            f"/v1{PATH}/..",
            f"/v1/..{PATH}",
            f"/admin/..{PATH}",
            f"/admin/%2e%2e{PATH}",
            f"/dashboard/..{PATH}",
        ],
    )
    async def test_lets_no_client_ask(self, origin: str, path: str) -> None:
        assert await status_of(origin, path) == 404
