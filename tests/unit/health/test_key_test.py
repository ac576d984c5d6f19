"""Testing keys that are not in the catalogue."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from libs.common.providers.credentials import Credentials
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from services.health.key_test import MOST_MODELS, KeyTester

pytestmark = pytest.mark.asyncio
SEALER = Sealer([Fernet.generate_key().decode()])
SECRET = "sk-secret"
SEALED = "sealed:" + SEALER.seal(SECRET)
Handler = Callable[[httpx.Request], httpx.Response]


async def examined(
    handler: Any, *credentials: str, timeout_s: float = 5, **more: Any
) -> list[dict[str, Any]]:
    order = {
        "base_url": "http://upstream/v1",
        "keys": [[f"key-{n}", c] for n, c in enumerate(credentials)],
        **more,
    }
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        environ = {"PROVIDER_KEY": "sk-env"}
        known = Credentials(environ, SEALER, ProviderRules.read({}))
        answer = await KeyTester(client, known, timeout_s).test(json.dumps(order))
    assert SECRET not in answer
    return list(json.loads(answer))


def models(*names: str) -> Handler:
    body = {"data": [{"id": name} for name in names]}
    return lambda _: httpx.Response(200, json=body)


async def test_each_key_is_asked_for_its_models() -> None:
    seen: dict[str, str] = {}

    def handler(request: httpx.Request) -> httpx.Response:
        seen[request.headers["authorization"]] = str(request.url)
        return httpx.Response(200, json={"data": [{"id": "gpt-5"}]})

    found = await examined(handler, SEALED, "env:PROVIDER_KEY")
    assert seen == dict.fromkeys(
        (f"Bearer {SECRET}", "Bearer sk-env"), "http://upstream/v1/models"
    )
    for told, name in zip(found, ("key-0", "key-1"), strict=True):
        assert told.pop("latency_ms") > 0
        assert told == {
            "key": name,
            "ok": True,
            "verdict": "ok",
            "detail": "the key works",
            "models": ["gpt-5"],
            "lists_model": None,
        }


async def test_a_key_of_azure_is_sent_as_api_key() -> None:
    seen: list[httpx.Headers] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200, json={"data": [{"id": "gpt-5"}]})

    (told,) = await examined(handler, SEALED, auth_type="api_key")
    assert told["ok"]
    ((sent),) = seen
    assert (sent["api-key"], "authorization" in sent) == (SECRET, False)


@pytest.mark.parametrize(("model", "lists"), [("gpt-5", True), ("gpt-6", False)])
async def test_whether_a_model_is_listed(model: str, lists: bool) -> None:
    (told,) = await examined(models("gpt-5"), SEALED, model=model)
    assert (told["ok"], told["lists_model"]) == (True, lists)


async def test_of_many_models_the_first_are_told_and_all_are_looked_through() -> None:
    names = [f"m{n}" for n in range(MOST_MODELS + 5)]
    (told,) = await examined(models(*names), SEALED, model=names[-1])
    assert (told["models"], told["lists_model"]) == (names[:MOST_MODELS], True)


@pytest.mark.parametrize("body", [b"rubbish", b"{}", b"[]", b'{"data":[1]}', b"null"])
async def test_an_upstream_that_lists_its_models_in_another_way(body: bytes) -> None:
    (told,) = await examined(
        lambda _: httpx.Response(200, content=body), SEALED, model="gpt-5"
    )
    assert (told["ok"], told["models"], told["lists_model"]) == (True, [], False)


NO_MONEY = {"error": {"code": "insufficient_quota"}}


@pytest.mark.parametrize(
    ("answer", "verdict", "detail"),
    [
        (httpx.Response(401), "refused", "the upstream rejects the key"),
        (httpx.Response(429), "limited", "the key is rate limited"),
        (
            httpx.Response(429, json=NO_MONEY),
            "exhausted",
            "the account of the key has no credit left",
        ),
        (httpx.Response(500), "fault", "500"),
        (httpx.Response(404), "neutral", "404: is the base_url right?"),
        (httpx.Response(302), "neutral", "302: is the base_url right?"),
    ],
)
async def test_what_the_upstream_says(
    answer: httpx.Response, verdict: str, detail: str
) -> None:
    (told,) = await examined(lambda _: answer, SEALED)
    assert (told["ok"], told["verdict"], told["models"]) == (False, verdict, [])
    assert told["detail"].startswith(detail)


async def test_an_upstream_that_cannot_be_reached() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    (told,) = await examined(handler, SEALED)
    assert (told["verdict"], told["detail"]) == ("fault", "cannot connect")
    assert told["latency_ms"] is None


async def test_an_upstream_that_does_not_answer() -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    (told,) = await examined(handler, SEALED, timeout_s=0.01)
    assert (told["verdict"], told["detail"]) == ("fault", "check timed out")


@pytest.mark.parametrize("credential", ["env:PROVIDER_GONE", "sealed:rubbish"])
async def test_a_key_that_cannot_be_had_here(credential: str) -> None:
    good, bad = await examined(models("gpt-5"), SEALED, credential)
    assert good["ok"]
    assert (bad["ok"], bad["verdict"]) == (False, "unresolved")
    assert bad["detail"]
