"""A gateway that requires keys, in front of the attacks' upstream, and the results."""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from libs.common.proxy_keys import Principal, new_secret, secret_hash
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions
from services.router.function_library import LIBRARY
from tests.attack.upstream import Upstream
from tests.support.clients import raw
from tests.support.clients.raw import Caller, calling
from tests.support.clients.sockets import visited
from tests.support.databases.valkey import empty
from tests.support.processes.stack import STREAM, Stack, gateway_stack
from tests.support.processes.waiting import eventually

UPSTREAM_KEYS = [f"sk-attack-{number}" for number in range(8)]
LARGEST_BODY = 2_000_000
MOST_CONNECTIONS = 256
SETTINGS = {
    "PROXY_REQUIRE_KEYS": "true",
    "PROXY_MAX_ATTEMPTS": "3",
    "PROXY_RESOURCE_COOLDOWN_SECONDS": "0.01",
    "PROXY_MAX_BODY_BYTES": str(LARGEST_BODY),
    "PROXY_MAX_CONNECTIONS": str(MOST_CONNECTIONS),
    "PROXY_HEAD_TIMEOUT_SECONDS": "2",
    "PROXY_BODY_TIMEOUT_SECONDS": "2",
    "PROXY_KEEP_ALIVE_SECONDS": "2",
    "PROXY_REQUEST_TIMEOUT_SECONDS": "30",
    "OPENAI_API_KEYS": ",".join(UPSTREAM_KEYS),
    "OPENAI_RESOURCE_ACCOUNT_IDS": ",".join(f"acct-{n % 4}" for n in range(8)),
}


@dataclass
class Attack:
    """One row of the table."""

    name: str
    tries: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    def breach(self, what: str) -> None:
        self.breaches.append(what[:400])

    @property
    def row(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.most_common())
        result = f"**{len(self.breaches)} breaches**" if self.breaches else "held"
        return f"| {self.name} | {self.tries} | {result}: {ends} |"


@dataclass
class Scene:
    """What attacks share."""

    stack: Stack
    upstream: Upstream
    secret: bytes
    draw: random.Random

    @property
    def key(self) -> bytes:
        """The header line with a valid key."""
        return b"authorization: Bearer " + self.secret

    def calling(self, buffer: int | None = None) -> "AsyncIterator[Caller]":
        return calling(self.stack.origin, buffer)  # type: ignore[return-value]

    async def rests(self) -> None:
        """Wait until nothing is in progress, so that the upstream's records are
        complete."""
        await eventually(lambda: raw.at_rest(self.stack), within_s=60)

    def judged(self, attack: Attack) -> Attack:
        """Collect breaches, including those the upstream saw."""
        for breach in self.upstream.breaches:
            attack.breach(f"upstream: {breach}")
        self.upstream.breaches.clear()
        self.upstream.seen.clear()
        return attack


@asynccontextmanager
async def scene(valkey: str, folder: Path, seed: int = 1) -> AsyncIterator[Scene]:
    draw = random.Random(seed)  # noqa: S311 - moments, no secrets
    upstream = Upstream(draw, frozenset(f"Bearer {k}".encode() for k in UPSTREAM_KEYS))
    secret = new_secret().encode()
    empty(valkey)
    async with connect(valkey) as redis:
        routing = RoutingFunctions(ClientCaller(redis), STREAM, library=LIBRARY)
        await routing.load_library()
        table = KeyTable(ClientCaller(redis))
        assert await table.change(None, {secret_hash(secret): Principal(id="key_a")})
    async with visited(upstream.serve) as visits:
        upstream.port = visits.port
        url = f"http://127.0.0.1:{visits.port}/v1"
        settings = {**SETTINGS, "PROXY_UPSTREAM_BASE_URL": url}
        async with gateway_stack(valkey, folder, **settings) as stack:
            yield Scene(stack, upstream, secret, draw)


def is_ours(body: bytes) -> bool:
    """Whether the body is an error in OpenAI's format."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(error, dict) and set(error) == {
        "message", "type", "param", "code",
    }  # fmt: skip
