"""An upstream key that is refused, and a webhook that fails twice: through all
processes the alert arrives, with a signature that OpenAI's SDK verifies."""

import asyncio
import base64
import json
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Plan, running_fleet
from tests.support.processes.serving import serving
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEYS = {"sk-sim-alert": "acct-a", "sk-sim-b": "acct-b"}


class Receiver:
    """Accepts alerts after the first `failures` of them."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.got: list[tuple[int, dict[str, str], bytes]] = []

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        status = 503 if len(self.got) < self.failures else 204
        self.got.append((status, headers, body))
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n" % status)
        writer.write(b"connection: close\r\n\r\n")


def plan(port: int) -> Plan:
    return Plan(
        KEYS,
        gateways=1,
        services=("router", "health", "ingest"),
        settings={
            "PROXY_ALERT_WEBHOOK_URL": f"http://127.0.0.1:{port}/hook",
            "PROXY_ALERT_WEBHOOK_SECRET": SECRET,
            "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "0.5",
        },
    )


async def test_a_refused_key_is_told_to_the_webhook(
    valkey_server: str, tmp_path: Path
) -> None:
    empty(valkey_server)
    receiver = Receiver(failures=2)
    async with (
        serving(receiver.serve) as port,
        Simulator(KEYS) as simulator,
        running_fleet(plan(port), simulator, valkey_server, tmp_path) as fleet,
        httpx.AsyncClient(timeout=20) as http,
    ):
        revoked = {"key": "sk-sim-alert", "fault": {"revoked": True}}
        done = await http.post(f"{simulator.control_url}/faults", json=revoked)
        assert done.is_success, done.text

        async def accepted() -> bool:
            return bool(receiver.got and receiver.got[-1][0] == 204)

        await eventually(accepted, within_s=60)
        assert [status for status, _, _ in receiver.got] == [503, 503, 204]
        verify = OpenAI(api_key="x").webhooks.verify_signature
        for _, headers, body in receiver.got:
            verify(body, headers, secret=SECRET)
            told = json.loads(body)
            assert told["id"] == headers["webhook-id"]
            assert told["type"] == "resource.unhealthy"
            assert told["data"]["resource_id"] == "openai-1"
            assert "sk-sim-alert" not in body.decode() + str(headers)
        assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1

        async def is_noted() -> bool:
            query = "SELECT count(*) FROM alerts WHERE delivered_at IS NOT NULL"
            return fetch(fleet.database, query) == [(1,)]

        await eventually(is_noted)
