"""Tenants through all processes: objects created with one proxy key (or its team) do
not exist for other keys, over HTTP and sockets, also after Redis has lost them or is
unreachable."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.clients.attack import Attack, FrameAttack, new_id
from tests.support.clients.attacks import FRAMES, HTTP
from tests.support.processes.waiting import eventually
from tests.support.worlds.tenants import MODEL, Key, Tenants

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
        await eventually(tenants.fleet.ready)
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
