"""Tenants through all processes: objects created with one proxy key (or its team) do
not exist for other keys, over HTTP and sockets, also after Redis has lost them or is
unreachable."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect as connect_redis
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Owner, digest
from tests.support.clients.attacks import FRAMES, HTTP, Attack, FrameAttack, new_id
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.stack import STREAM
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = "gpt-5.5"
# One account, so that every upstream key can read what any other created.
UPSTREAM_KEYS = {"sk-sim-1": "acct", "sk-sim-2": "acct"}
PLAN = Plan(
    UPSTREAM_KEYS,
    gateways=2,
    services=("router", "ingest"),
    settings={"PROXY_REQUIRE_KEYS": "true", "PROXY_HEARTBEAT_SECONDS": "0.1"},
)


class Tenants:
    """The running product with proxy keys."""

    def __init__(self, fleet: Fleet, redis: Redis) -> None:
        self.fleet = fleet
        self.redis = redis
        self.routing = RoutingFunctions(ClientCaller(redis), STREAM)
        self.http = httpx.AsyncClient(timeout=20)

    async def mint(self, kind: "type[Key] | None" = None, **fields: Any) -> "Key":
        answer = await self.http.post(f"{self.fleet.admin}/keys", json=fields)
        assert answer.status_code == 201, answer.text
        return (kind or Key)(self, answer.json())

    async def give(self, key: "Key", *ids: str) -> None:
        """Record these ids as if requests of the key had minted them."""
        owner = Owner("openai-1", "acct", f"key:{key.id}")
        await self.routing.adopt(ids={digest(id_): owner for id_ in ids})

    def upstream_calls(self) -> int:
        """Requests and frames that reached the upstream."""
        journal = self.fleet.simulator.state.journal.shown(None, bodies=False)
        return len(journal["entries"])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return fetch(self.fleet.database, query)

    async def stored(self) -> None:
        """Wait until everything that happened is in SQL."""
        await eventually(self.fleet.settled)


class Key:
    """A client with a proxy key."""

    def __init__(self, tenants: Tenants, minted: dict[str, Any]) -> None:
        self.tenants = tenants
        self.id = str(minted["id"])
        self.headers = {"authorization": f"Bearer {minted['secret']}"}

    async def call(
        self, method: str, path: str, gateway: int = 0, **more: Any
    ) -> httpx.Response:
        url = f"{self.tenants.fleet.gateways[gateway].url}{path}"
        headers = self.headers | more.pop("headers", {})
        return await self.tenants.http.request(method, url, headers=headers, **more)

    async def ask(self, gateway: int = 0, **fields: Any) -> httpx.Response:
        body = {"model": MODEL, "input": "hi", **fields}
        return await self.call("POST", "/responses", gateway, json=body)

    def socket(self, gateway: int = 0) -> connect:
        url = self.tenants.fleet.gateways[gateway].url.replace("http", "ws", 1)
        return connect(
            f"{url}/responses",
            additional_headers=self.headers,
            proxy=None,
            compression=None,
        )

    async def turn(self, socket: ClientConnection, **fields: Any) -> dict[str, Any]:
        """The last event of a response on a socket."""
        frame = {"type": "response.create", "model": MODEL, "input": "hi", **fields}
        await socket.send(json.dumps(frame))
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] in ("response.completed", "response.failed", "error"):
                return event

    async def response(self, **fields: Any) -> str:
        """The id of a new response."""
        answer = await self.ask(**fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tenants(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tenants]:
    folder: Path = tmp_path_factory.mktemp("tenants")
    empty(valkey_server)
    redis = connect_redis(valkey_server)
    async with (
        Simulator(UPSTREAM_KEYS) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
    ):
        found = Tenants(fleet, redis)
        yield found
        await found.http.aclose()
    await redis.aclose()


def same_but_for(one: httpx.Response, other: httpx.Response, *ids: str) -> None:
    """Two answers differ in nothing but the requested ids."""
    texts, heads = [], []
    for answer in (one, other):
        text = answer.text
        for id_ in ids:
            text = text.replace(id_[1:], "ID")
        texts.append((answer.status_code, text))
        varying = ("x-proxy-request-id", "date", "content-length")
        heads.append({k: v for k, v in answer.headers.items() if k not in varying})
    assert texts[0] == texts[1]
    assert heads[0] == heads[1]


async def test_key_b_cannot_continue_the_response_of_key_a(tenants: Tenants) -> None:
    a, b = await tenants.mint(), await tenants.mint()
    response_id = await a.response()
    assert (await a.ask(1, previous_response_id=response_id)).status_code == 200
    unknown = response_id[:-4] + "0000"
    refused = await b.ask(1, previous_response_id=response_id)
    assert refused.status_code == 400
    assert refused.json() == {
        "error": {
            "message": f"Previous response with id '{response_id}' not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        }
    }
    nothing = await b.ask(1, previous_response_id=unknown)
    same_but_for(refused, nothing, response_id, unknown)


class TestResponses:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/responses/{}"),
            ("GET", "/responses/{}?stream=true"),
            ("GET", "/responses/{}/input_items"),
            ("POST", "/responses/{}/cancel"),
            ("DELETE", "/responses/{}"),
        ],
    )
    async def test_of_another_key_do_not_exist(
        self, tenants: Tenants, method: str, path: str
    ) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        response_id = await a.response(background=True)
        unknown = response_id[:-4] + "0000"
        refused = await b.call(method, path.format(response_id), 1)
        assert refused.status_code == 404
        nothing = await b.call(method, path.format(unknown), 1)
        same_but_for(refused, nothing, response_id, unknown)
        assert (await a.call(method, path.format(response_id))).status_code == 200

    async def test_are_shared_within_a_team(self, tenants: Tenants) -> None:
        one, two = [await tenants.mint(team_id="blue") for _ in range(2)]
        other = await tenants.mint(team_id="red")
        response_id = await one.response()
        assert (await two.call("GET", f"/responses/{response_id}")).is_success
        assert (await two.ask(1, previous_response_id=response_id)).is_success
        refused = await other.ask(1, previous_response_id=response_id)
        assert refused.json()["error"]["code"] == "previous_response_not_found"

    async def test_stay_with_the_tenant_of_their_time(self, tenants: Tenants) -> None:
        """A key that joins a team brings nothing along, and takes nothing along when it
        leaves."""
        key = await tenants.mint()
        response_id = await key.response()
        url = f"{tenants.fleet.admin}/keys/{key.id}"
        changed = await tenants.http.patch(url, json={"team_id": "green"})
        assert changed.json()["team_id"] == "green"

        async def moved() -> bool:
            answer = await key.call("GET", f"/responses/{response_id}")
            return answer.status_code == 404

        await eventually(moved)

    async def test_the_cause_is_in_sql_alone(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint(team_id="seen")
        response_id = await a.response()
        unknown = response_id[:-4] + "0000"
        await b.ask(previous_response_id=response_id)
        await b.ask(previous_response_id=unknown)
        await tenants.stored()
        assert tenants.rows(
            "SELECT status_code, outcome, error_code, team_id, resource_id "
            f"FROM requests WHERE proxy_key_id = '{b.id}' ORDER BY created_at"
        ) == [
            (400, "failed", "foreign_id", "seen", None),
            (400, "failed", "unknown_id", "seen", None),
        ]
        assert tenants.rows(
            "SELECT reason, decisions.resource_id FROM decisions JOIN requests "
            "ON requests.id = request_id "
            f"WHERE proxy_key_id = '{b.id}' ORDER BY requests.created_at"
        ) == [("foreign_id", None), ("unknown_id", None)]

    async def test_owners_survive_an_emptied_redis(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        response_id = await a.response()
        await tenants.stored()
        for gateway in tenants.fleet.gateways:  # their memory, too
            await gateway.end()
        await tenants.redis.flushdb()
        for gateway in tenants.fleet.gateways:
            gateway.start_anew()
            await gateway.ready()
        await eventually(tenants.fleet.ready, within_s=20)
        path = f"/responses/{response_id}"
        assert (await b.call("GET", path)).status_code == 404
        assert (await b.ask(previous_response_id=response_id)).status_code == 400
        assert (await a.call("GET", path)).status_code == 200
        assert (await a.ask(previous_response_id=response_id)).status_code == 200

    async def test_a_background_stream_can_be_cancelled_while_it_runs(
        self, tenants: Tenants
    ) -> None:
        a = await tenants.mint()
        url = f"{tenants.fleet.gateways[0].url}/responses"
        body = {
            "model": MODEL,
            "input": "hi",
            "background": True,
            "stream": True,
            "simulate_duration_ms": 60_000,
        }
        async with tenants.http.stream(
            "POST", url, json=body, headers=a.headers
        ) as answer:
            created = await first_event(answer.aiter_lines())
            response_id = created["response"]["id"]
            cancelled = await a.call("POST", f"/responses/{response_id}/cancel", 1)
            assert cancelled.status_code == 200
            assert cancelled.json()["status"] == "cancelled"


async def first_event(lines: AsyncIterator[str]) -> dict[str, Any]:
    async for line in lines:
        if line.startswith("data: "):
            return dict(json.loads(line.removeprefix("data: ")))
    raise AssertionError("no event")


class Attacker(Key):
    """A key that knows another tenant's ids."""

    own: dict[str, str]

    async def settle_in(self) -> None:
        """Create its own objects, where attacks need them."""
        self.own = {
            kind: new_id(kind) for kind in ("conv", "vs", "cntr", "resp", "upload")
        }
        await self.tenants.give(self, *self.own.values())
        made = await self.call("POST", "/conversations", json={})
        self.own["conv"] = made.json()["id"]

    def filled(self, text: str, id_: str) -> str:
        for kind, own in self.own.items():
            text = text.replace(f"OWN_{kind}", own)
        return text.replace("ID", id_).replace("%49D", f"%{ord(id_[0]):x}{id_[1:]}")

    async def tries(self, attack: Attack, id_: str, gateway: int) -> httpx.Response:
        body = attack.body
        content = attack.encoded(self.filled(body, id_)) if body else None
        headers = {"content-type": "application/json"} if body else {}
        return await self.call(
            attack.method,
            self.filled(attack.path, id_),
            gateway,
            content=content,
            headers=headers | attack.headers,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attack_(tenants: Tenants) -> tuple[Key, Attacker]:
    victim, attacker = await tenants.mint(), await tenants.mint(kind=Attacker)
    assert isinstance(attacker, Attacker)
    await attacker.settle_in()
    return victim, attacker


def result_of(status: int, error: dict[str, Any]) -> str:
    if error["code"] is None:
        return f"{status}, as of an id that does not exist"
    return f"{status} {error['code']}"


@pytest.mark.parametrize("attack", HTTP, ids=lambda attack: attack.what)
async def test_every_route_that_takes_an_id(
    tenants: Tenants, attack_: tuple[Key, Attacker], attack: Attack
) -> None:
    """For each id of another tenant the answer is the same as for an unknown id, and
    nothing reaches the upstream."""
    victim, attacker = attack_
    foreign, nobodys = new_id(attack.kind), new_id(attack.kind)
    await tenants.give(victim, foreign)
    before = tenants.upstream_calls()
    for gateway in range(2):
        refused = await attacker.tries(attack, foreign, gateway)
        assert result_of(refused.status_code, refused.json()["error"]) == attack.result
    assert tenants.upstream_calls() == before
    nothing = await attacker.tries(attack, nobodys, 1)
    if not attack.reference:
        same_but_for(refused, nothing, foreign, nobodys)
        assert tenants.upstream_calls() == before


@pytest.mark.parametrize("attack", FRAMES, ids=lambda attack: attack.what)
async def test_every_frame_that_takes_an_id(
    tenants: Tenants, attack_: tuple[Key, Attacker], attack: FrameAttack
) -> None:
    """The same; the socket stays open and serves the next frame."""
    victim, attacker = attack_
    foreign, nobodys = new_id(attack.kind), new_id(attack.kind)
    await tenants.give(victim, foreign)
    async with attacker.socket() as socket:
        for first in (True, False):
            before = tenants.upstream_calls()
            frames = []
            for id_ in (foreign, nobodys):
                frame = attack.frame.replace("ID", id_)
                await socket.send(frame.encode() if attack.binary else frame)
                if id_ == nobodys and attack.kind == "msg":
                    break  # clients may invent this kind of id
                told = json.loads(await socket.recv())
                assert told["type"] == "error"
                assert result_of(told["status"], told["error"]) == attack.result
                frames.append(json.dumps(told).replace(id_, "ID"))
            assert len(set(frames)) == 1
            if attack.kind != "msg":
                assert tenants.upstream_calls() == before
            if attack.kind == "msg":
                return
            if first:
                assert (await attacker.turn(socket))["type"] == "response.completed"


class TestOwnObjects:
    """A key can use what it or its team created; other keys cannot."""

    async def test_conversations_and_their_items(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        item = {"type": "message", "role": "user", "content": "hi"}
        made = await a.call("POST", "/conversations", json={"items": [item]})
        path = f"/conversations/{made.json()['id']}"
        assert (await a.ask(1, conversation=made.json()["id"])).is_success
        listed = (await a.call("GET", f"{path}/items", 1)).json()["data"]
        assert len(listed) >= 2
        for one in listed:
            assert (await a.call("GET", f"{path}/items/{one['id']}")).is_success
            reference = [{"type": "item_reference", "id": one["id"]}]
            refused = await b.ask(input=reference)
            assert refused.status_code == 404
            assert refused.json()["error"]["param"] == "input"
        assert (await b.call("GET", f"{path}/items")).status_code == 404
        assert (await b.call("DELETE", path)).status_code == 404
        assert (await a.call("DELETE", path, 1)).is_success

    async def test_files_and_vector_stores(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        form = {"file": ("a.txt", b"secret")}
        made = await a.call("POST", "/files", files=form, data={"purpose": "user_data"})
        assert made.status_code == 200, made.text
        file_id = made.json()["id"]
        stored = await a.call("POST", "/vector_stores", 1, json={"file_ids": [file_id]})
        assert stored.status_code == 200, stored.text
        store_id = stored.json()["id"]
        for path in (
            f"/files/{file_id}",
            f"/files/{file_id}/content",
            f"/vector_stores/{store_id}",
            f"/vector_stores/{store_id}/files",
        ):
            assert (await a.call("GET", path, 1)).status_code == 200
            assert (await b.call("GET", path, 1)).status_code == 404
        tool = {"type": "file_search", "vector_store_ids": [store_id]}
        assert (await a.ask(tools=[tool])).is_success
        assert (await b.ask(tools=[tool])).status_code == 404

    async def test_containers(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(team_id="shared"), await tenants.mint()
        mate = await tenants.mint(team_id="shared")
        made = await a.call("POST", "/containers", json={"name": "box"})
        container_id = made.json()["id"]
        tool = {"type": "code_interpreter", "container": container_id}
        assert (await mate.ask(1, tools=[tool])).is_success
        assert (await b.ask(1, tools=[tool])).status_code == 404
        assert (
            await b.call("DELETE", f"/containers/{container_id}")
        ).status_code == 404

    async def test_items_sent_back_with_their_content(self, tenants: Tenants) -> None:
        """As the Agents SDK does; also with ids that a client invents."""
        a = await tenants.mint()
        first = (await a.ask()).json()
        history = [*first["output"], {"role": "user", "content": "more"}]
        assert (await a.ask(1, input=history)).is_success
        invented = {
            "type": "message",
            "role": "assistant",
            "id": "msg_mine",
            "content": [{"type": "output_text", "text": "x"}],
        }
        assert (await a.ask(1, input=[invented])).is_success

    async def test_an_id_stays_its_minters_whoever_repeats_it(
        self, tenants: Tenants
    ) -> None:
        """Clients choose the ids of items they add; a list then returns them."""
        a, b = await tenants.mint(), await tenants.mint()
        item_id = (await a.ask()).json()["output"][-1]["id"]
        conversation = (await b.call("POST", "/conversations", json={})).json()["id"]
        path = f"/conversations/{conversation}/items"
        theirs = {"type": "message", "role": "user", "content": "x", "id": item_id}
        newer = [
            {"type": "message", "role": "user", "content": str(n), "id": f"msg_{n}"}
            for n in range(9)
        ]
        await b.call("POST", path, json={"items": [theirs, *newer]})
        listed = await b.call("GET", f"{path}?limit=100", 1)
        assert listed.status_code == 200
        reference = [{"type": "item_reference", "id": item_id}]
        assert (await a.ask(input=reference)).status_code == 200
        assert (await b.ask(input=reference)).status_code == 404

    async def test_sessions_named_alike_share_nothing(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        headers = {"x-session-id": "same"}
        body = {"model": MODEL, "input": "hi"}
        reasons = [
            (await key.call("POST", "/responses", json=body, headers=headers)).headers[
                "x-proxy-reason"
            ]
            for key in (a, b, a)
        ]
        assert reasons == [
            "weighted_least_connections",
            "weighted_least_connections",
            "session_affinity",
        ]

    async def test_answers_come_in_codings_that_can_be_opened(
        self, tenants: Tenants
    ) -> None:
        a = await tenants.mint()
        body = {"model": MODEL, "input": "hi"}
        headers = {"accept-encoding": "br;q=1.0, gzip;q=0.5, *"}
        await a.call("POST", "/responses", json=body, headers=headers)
        newest = tenants.fleet.simulator.state.journal.shown(None, bodies=False)
        sent = {k.lower(): v for k, v in newest["entries"][-1]["headers"]}
        assert sent["accept-encoding"] == "gzip;q=0.5"


class TestSockets:
    async def test_a_conversation_on_one_socket(self, tenants: Tenants) -> None:
        """Also by ids that only this socket knows (`store: false`)."""
        a, b = await tenants.mint(), await tenants.mint()
        async with a.socket() as socket:
            first = (await a.turn(socket, store=False))["response"]["id"]
            second = await a.turn(socket, store=False, previous_response_id=first)
            assert second["type"] == "response.completed"
        stored = await a.response()
        async with a.socket(1) as socket:
            event = await a.turn(socket, previous_response_id=stored)
            assert event["type"] == "response.completed"
            made = event["response"]["id"]
        assert (await a.call("GET", f"/responses/{made}")).status_code == 200
        assert (await b.call("GET", f"/responses/{made}")).status_code == 404
        async with b.socket() as socket:
            event = await b.turn(socket, previous_response_id=made)
            assert event == {
                "type": "error",
                "status": 400,
                "error": {
                    "message": f"Previous response with id '{made}' not found.",
                    "type": "invalid_request_error",
                    "param": "previous_response_id",
                    "code": "previous_response_not_found",
                },
            }
            assert (await b.turn(socket))["type"] == "response.completed"

    async def test_the_cause_is_in_sql(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        response_id = await a.response()
        async with b.socket() as socket:
            await b.turn(socket)
            await b.turn(socket, previous_response_id=response_id)
        await tenants.stored()
        assert tenants.rows(
            "SELECT status_code, outcome, error_code FROM requests "
            f"WHERE proxy_key_id = '{b.id}' ORDER BY created_at"
        ) == [(200, "completed", None), (400, "failed", "foreign_id")]
