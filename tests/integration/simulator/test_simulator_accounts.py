"""The simulated upstream: objects belong to an account, keys can be revoked, and
answers name the account."""

import io
import json
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from openai import AsyncOpenAI

from libs.simulator.server import RunningSimulator
from tests.support.upstreams.simulated import MODEL, RESPONSES, bearer, create, script
from tests.support.upstreams.simulator import Simulator

pytest_plugins = ["tests.support.upstreams.simulated_clients"]
pytestmark = pytest.mark.asyncio
NAMES = {"openai-organization", "openai-project"}


async def uploaded(a1: AsyncOpenAI) -> str:
    upload = ("a.txt", io.BytesIO(b"text"))
    return (await a1.files.create(file=upload, purpose="user_data")).id


async def test_a_vector_store_and_its_files_belong_to_their_account(
    a1: AsyncOpenAI, a2: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    first, second = await uploaded(a1), await uploaded(a1)
    made = await a1.vector_stores.create(name="docs", file_ids=[first])
    assert made.id.startswith("vs_")
    assert made.file_counts.total == 1
    added = await a2.vector_stores.files.create(made.id, file_id=second)
    assert (added.id, added.vector_store_id) == (second, made.id)
    listed = await a1.vector_stores.files.list(made.id, order="asc")
    assert [file.id for file in listed.data] == [first, second]
    assert (await a2.vector_stores.retrieve(made.id)).file_counts.completed == 2
    assert [store.id for store in (await a1.vector_stores.list()).data] == [made.id]
    assert (await b1.vector_stores.list()).data == []
    for asked in (
        b1.vector_stores.retrieve(made.id),
        b1.vector_stores.delete(made.id),
        b1.vector_stores.files.list(made.id),
        b1.vector_stores.files.create(made.id, file_id=first),
        b1.vector_stores.create(file_ids=[first]),
    ):
        with pytest.raises(openai.NotFoundError):
            await asked
    assert (await a1.vector_stores.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await a1.vector_stores.retrieve(made.id)


async def test_a_container_belongs_to_its_account(
    a1: AsyncOpenAI, a2: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    made = await a1.containers.create(name="box")
    assert made.id.startswith("cntr_")
    assert (await a2.containers.retrieve(made.id)).name == "box"
    assert [box.id for box in (await a1.containers.list()).data] == [made.id]
    for asked in (b1.containers.retrieve(made.id), b1.containers.delete(made.id)):
        with pytest.raises(openai.NotFoundError) as foreign:
            await asked
        assert f"Container with id '{made.id}' not found." in foreign.value.message
    await a1.containers.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await a1.containers.retrieve(made.id)


async def test_a_batch_belongs_to_its_account(
    a1: AsyncOpenAI, a2: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    file_id = await uploaded(a1)

    async def batch(by: AsyncOpenAI) -> Any:
        return await by.batches.create(
            input_file_id=file_id, endpoint="/v1/responses", completion_window="24h"
        )

    made = await batch(a2)
    assert made.id.startswith("batch_")
    assert (await a1.batches.retrieve(made.id)).status == "in_progress"
    for asked in (batch(b1), b1.batches.retrieve(made.id), b1.batches.cancel(made.id)):
        with pytest.raises(openai.NotFoundError):
            await asked
    assert (await a1.batches.cancel(made.id)).status == "cancelled"
    assert [job.id for job in (await a1.batches.list()).data] == [made.id]


@pytest.mark.parametrize(
    ("path", "object_id"),
    [("/v1/vector_stores", "vs"), ("/v1/containers", "cntr"), ("/v1/batches", "batch")],
)
async def test_an_unknown_id_is_404_in_the_usual_envelope(
    http: httpx.AsyncClient, path: str, object_id: str
) -> None:
    # `x_1`: an invented id is not in this collection, whatever its prefix.
    for asked in (f"{object_id}_none", "x_1"):
        answer = await http.get(f"{path}/{asked}")
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert asked in error["message"]


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/v1/containers", "name"),
        ("/v1/batches", "input_file_id"),
    ],
)
async def test_what_an_object_needs_is_named(
    http: httpx.AsyncClient, path: str, missing: str
) -> None:
    answer = await http.post(path, json={})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == missing


@pytest.mark.parametrize("path", [RESPONSES, f"{RESPONSES}/input_tokens"])
@pytest.mark.parametrize("kind", ["input_file", "input_image", "tool output"])
async def test_input_that_names_a_file_needs_its_account(
    a1: AsyncOpenAI, http: httpx.AsyncClient, kind: str, path: str
) -> None:
    part = {"type": kind, "file_id": await uploaded(a1)}
    item: dict[str, Any] = {"role": "user", "content": [part]}
    if kind == "tool output":
        item = {"type": "function_call_output", "call_id": "call_1", "output": [part]}
    own = await http.post(path, json=create(input=[item]))
    foreign = await http.post(path, json=create(input=[item]), headers=bearer("sk-b1"))
    assert own.status_code == 200
    assert foreign.status_code == 404
    assert part["file_id"] in foreign.json()["error"]["message"]


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "file_search", "vector_store_ids": ["VS"]},
        {"type": "code_interpreter", "container": "CNTR"},
        {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["F"]}},
        {"type": "shell", "environment": {"container_id": "CNTR"}},
        {"type": "image_generation", "input_image_mask": {"file_id": "F"}},
    ],
    ids=[
        "vector store",
        "container",
        "file in a container",
        "shell",
        "image mask",
    ],
)
async def test_tools_that_name_an_object_need_its_account(
    a1: AsyncOpenAI, http: httpx.AsyncClient, tool: dict[str, Any]
) -> None:
    ids = {
        "VS": (await a1.vector_stores.create()).id,
        "CNTR": (await a1.containers.create(name="box")).id,
        "F": await uploaded(a1),
    }
    text = json.dumps(create(tools=[tool]))
    for name, object_id in ids.items():
        text = text.replace(f'"{name}"', f'"{object_id}"')
    for path in (RESPONSES, f"{RESPONSES}/input_tokens"):
        own = await http.post(path, content=text)
        foreign = await http.post(path, content=text, headers=bearer("sk-b1"))
        assert own.status_code == 200, own.text
        assert foreign.status_code == 404


async def test_tools_that_name_nothing_kept_go_everywhere(
    http: httpx.AsyncClient,
) -> None:
    tools = [
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "web_search"},
        {"type": "file_search", "vector_store_ids": None},
    ]
    answer = await http.post(RESPONSES, json=create(tools=tools))
    assert answer.status_code == 200


async def test_a_revoked_key_is_refused_everywhere_until_it_is_restored(
    simulator: RunningSimulator, http: httpx.AsyncClient, a2: AsyncOpenAI
) -> None:
    simulator.revoke("sk-a1")
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", RESPONSES),
        ("GET", RESPONSES + "/resp_x"),
        ("GET", "/v1/nothing"),
    ):
        answer = await http.request(method, path, json=create())
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert not NAMES & set(answer.headers)
    assert (await a2.responses.create(model=MODEL, input="x")).status == "completed"
    simulator.restore("sk-a1")
    assert (await http.get("/v1/models")).status_code == 200


async def test_the_control_api_revokes_and_restores(http: httpx.AsyncClient) -> None:
    revoked = await http.post("/__sim/revoke", json={"key": "sk-a1"})
    assert revoked.json() == {"revoked": ["sk-a1"]}
    assert (await http.get("/v1/models")).status_code == 401
    restored = await http.post("/__sim/restore", json={"key": "sk-a1"})
    assert restored.json() == {"revoked": []}
    assert (await http.get("/v1/models")).status_code == 200
    for action in ("revoke", "restore"):
        assert (await http.post(f"/__sim/{action}", json={})).status_code == 400


async def test_an_open_socket_learns_that_its_key_was_revoked(
    simulator: RunningSimulator,
) -> None:
    ask = {"type": "response.create", **create()}
    async with (
        aiohttp.ClientSession(headers=bearer("sk-a1")) as session,
        session.ws_connect(f"{simulator.base_url}/responses") as socket,
    ):
        simulator.revoke("sk-a1")
        await socket.send_json(ask)
        refused = await socket.receive_json()
        assert (refused["type"], refused["status"]) == ("error", 401)
        assert refused["error"]["code"] == "invalid_api_key"
        with pytest.raises(aiohttp.WSServerHandshakeError) as upgrade:
            await session.ws_connect(f"{simulator.base_url}/responses")
        assert upgrade.value.status == 401
        simulator.restore("sk-a1")
        await socket.send_json(ask)
        assert (await socket.receive_json())["type"] == "response.created"


async def test_every_authenticated_answer_names_its_account(
    http: httpx.AsyncClient,
) -> None:
    await script(http, {"status": 500}, match={"model": "broken"})
    answers = [
        await http.get("/v1/models"),
        await http.post(RESPONSES, json=create()),
        await http.post(RESPONSES, json=create(stream=True)),
        await http.post(RESPONSES, json=create(model="broken")),
        await http.post(RESPONSES, content=b"{"),
        await http.get(f"{RESPONSES}/resp_none"),
        await http.get("/v1/nothing"),
    ]
    assert [answer.status_code for answer in answers] == [
        *(200, 200, 200),
        *(500, 400, 404, 404),
    ]
    for answer in answers:
        assert answer.headers["openai-organization"] == "acct-a"
        assert answer.headers["openai-project"] == "proj_acct-a"
    for given in ({"authorization": "Basic x"}, bearer("sk-nobody")):
        refused = await http.get("/v1/models", headers=given)
        assert refused.status_code == 401
        assert not NAMES & set(refused.headers)


async def test_a_simulator_can_keep_its_accounts_to_itself() -> None:
    async with (
        Simulator({"sk-1": "acct"}, name_accounts=False) as simulator,
        httpx.AsyncClient(headers=bearer("sk-1"), timeout=60) as http,
    ):
        url = f"{simulator.base_url}/responses"
        answer = await http.post(url, json=create())
        assert not NAMES & set(answer.headers)
        assert answer.headers["x-ratelimit-limit-requests"]
        told = await http.post(
            f"{simulator.control_url}/settings", json={"name_accounts": True}
        )
        assert told.json()["name_accounts"] is True
        answer = await http.post(url, json=create())
        assert answer.headers["openai-organization"] == "acct"
