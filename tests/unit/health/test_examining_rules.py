"""Rules for keys that are tested for the admin API."""

import json

import httpx
import pytest

from libs.common.providers.credentials import Credentials
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from services.health.key_test import KeyTester

pytestmark = pytest.mark.asyncio
KEY = "sk-proj-0123456789-abcdefgh"
ENVIRON = {"PROVIDER_KEY": KEY, "OPENAI_API_KEY": KEY, "PATH": KEY}


async def examined(credential: str, base_url: str, status: int = 200) -> str:
    def echo(request: httpx.Request) -> httpx.Response:
        shown = request.headers["authorization"]
        error = {"code": shown, "message": shown}
        return httpx.Response(status, json={"data": [{"id": shown}], "error": error})

    client = httpx.AsyncClient(transport=httpx.MockTransport(echo))
    credentials = Credentials(ENVIRON, Sealer(()), ProviderRules.read({}))
    order = {"base_url": base_url, "keys": [["acme", credential]]}
    return await KeyTester(client, credentials, 5).test(json.dumps(order))


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
async def test_an_upstream_that_echoes_the_key_in_a_test(status: int) -> None:
    """The key is not in the result."""
    said = await examined("env:PROVIDER_KEY", "https://acme.example/v1", status)
    assert KEY not in said
    assert json.loads(said)[0]["verdict"] != "unresolved"


@pytest.mark.parametrize(
    ("credential", "base_url"),
    [
        ("env:OPENAI_API_KEY", "https://evil.example/v1"),
        ("env:PATH", "https://evil.example/v1"),
        ("env:PROVIDER_KEY", "http://169.254.169.254/v1"),
    ],
)
async def test_an_order_that_breaks_the_rules_sends_nothing(
    credential: str, base_url: str
) -> None:
    """Anybody who can write to Redis can request tests."""
    (said,) = json.loads(await examined(credential, base_url))
    assert (said["verdict"], said["models"]) == ("unresolved", [])
