"""The admin API does what its OpenAPI document says: schemathesis sends it valid and
invalid requests, to a real router with a real Redis-compatible server and SQLite.

Nothing leaves the machine. The router itself calls no upstream, and behind an HTTP
proxy it resolves no names of providers; a stand-in takes the orders of the health
service."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from cryptography.fernet import Fernet
from redis.asyncio import Redis

from libs.common.redis.check_queue import Orders
from services.health.check_queue import CheckQueueWorker
from services.health.key_test import KeyTester
from services.health.prober import Check, Prober
from services.router.api.compression import LEAST
from tests.integration.router.process.running import TOKEN, Standing, fill, router
from tests.support.databases.valkey import empty
from tests.support.processes.processes import bare_environment
from tests.support.processes.serving import serving
from tests.support.processes.tasks import beside

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEAST_CASES = 2_000
# These answer 400 also to what the schemas allow: a schema can state neither which
# fields go together, nor what depends on the configuration, nor the form of networks,
# addresses and cursors.
WITH_MORE_RULES = (
    r"^/admin/(audit|charts|decisions|keys|keys/\{key_id\}|models|models/\{alias\}"
    r"|models/test|providers|providers/\{provider_id\}|providers/test|requests|sessions|teams"
    r"|teams/\{team_id\}|tokens)$"
)
CONFIGURATION = f"""
seed = 15
max-failures = 20
request-timeout = 20.0
max-stream-events = 1
headers = {{ Authorization = "Bearer {TOKEN}" }}
[generation]
deterministic = true
max-examples = 6
[[operations]]
include-path-regex = '{WITH_MORE_RULES}'
checks.positive_data_acceptance.expected-statuses = [
  "2xx", "400", "401", "403", "404", "409", "5xx",
]
# Of gateways.
[[operations]]
include-path-regex = "^/v1/"
enabled = false
"""


class NoUpstreams:
    """Reports on upstreams without connecting to any."""

    async def check_all(self) -> list[Check]:
        return []

    async def test(self, order: str) -> str:
        verdict = {"ok": False, "verdict": "fault", "detail": "not asked"}
        found: dict[str, Any] = {"latency_ms": None, "models": [], "lists_model": None}
        keys = json.loads(order)["keys"]
        return json.dumps([{"key": name, **verdict, **found} for name, _ in keys])


@asynccontextmanager
async def standing_in_for_health(redis: Redis) -> AsyncIterator[None]:
    nobody = NoUpstreams()
    worker = CheckQueueWorker(
        Orders(redis), cast(Prober, nobody), cast(KeyTester, nobody)
    )
    stop = asyncio.Event()
    async with beside(worker.run(stop)):
        yield
        stop.set()


@asynccontextmanager
async def egress() -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy that forwards nothing: its URL, and who connected to it."""
    reached: list[str] = []

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(str(writer.get_extra_info("peername")))

    async with serving(refuse) as port:
        yield f"http://127.0.0.1:{port}", reached


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("router")
    async with egress() as (proxy, reached):
        settings = {
            "PROXY_ADMIN_TOKEN": TOKEN,
            "PROXY_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "http_proxy": proxy,
            "https_proxy": proxy,
        }
        async with router(valkey_server, folder, **settings) as standing:
            await fill(standing.database)
            async with standing_in_for_health(standing.redis):
                yield standing
        assert reached == []


async def test_the_document_is_valid(standing: Standing) -> None:
    # Here, because its import builds grammars: 2.7 s of each worker's collection.
    from openapi_spec_validator import OpenAPIV31SpecValidator  # noqa: PLC0415

    document = (await standing.http.get("/openapi.json")).json()
    faults = OpenAPIV31SpecValidator(document).iter_errors()
    assert [fault.message for fault in faults] == []


async def test_head_etags_and_codings(standing: Standing) -> None:
    http = standing.http
    http.headers["authorization"] = f"Bearer {TOKEN}"
    for path in ("/", "/docs", "/openapi.json", "/admin/state", "/healthz"):
        got = await http.get(path, headers={"accept-encoding": "identity"})
        head = await http.head(path, headers={"accept-encoding": "identity"})
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    page = await http.get("/openapi.json", headers={"accept-encoding": "zstd"})
    assert page.headers["content-encoding"] == "zstd"
    tag = {"if-none-match": page.headers["etag"]}
    assert (await http.get("/openapi.json", headers=tag)).status_code == 304
    state = await http.get("/admin/state", headers={"accept-encoding": "gzip"})
    assert state.headers["content-encoding"] == "gzip"
    assert set(state.json()) >= {"resources", "ledger"}
    minted = await http.post(
        "/admin/keys", json={"policy": {"models": ["m" * 190] * 9}}
    )
    assert len(minted.content) > LEAST
    assert "content-encoding" not in minted.headers


# Some 20 s of processor time.
@pytest.mark.timeout(600)
async def test_the_admin_api_does_what_the_document_says(
    standing: Standing, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", "--no-color"),
        *("--warnings", "off"),
        f"{standing.http.base_url}/openapi.json",
        cwd=tmp_path,
        env=bare_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output[-8_000:]
    (cases,) = re.findall(r"(\d+) generated", output)
    assert int(cases) >= LEAST_CASES, output[-1_000:]
