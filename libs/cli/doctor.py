"""`responses-proxy doctor`: one line for each thing that must work, with the fix.

Never prints a secret: neither keys nor what stands before the @ of a URL."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import httpx
from redis import Redis
from redis.exceptions import RedisError

from libs.cli.checks import PORTS, check_ports, check_settings
from libs.cli.observe import see_redis
from libs.cli.plan import without_password
from libs.common.errors import ProxyError, SettingError, StoreAway
from libs.common.resources import resolve_credential, resources_from_environment
from libs.common.service_settings import GatewaySettings
from libs.common.settings import CommonSettings, DatabaseSettings
from libs.common.store import open_store

TIMEOUT_SECONDS = 5.0
FIRST_WITH_FUNCTIONS = 7


@dataclass(frozen=True)
class Finding:
    """One line of the report. `fix` is empty when nothing is wrong."""

    subject: str
    state: str
    fix: str = ""

    def __str__(self) -> str:
        mark = "FAIL" if self.fix else "ok"
        return f"{mark:<5} {self.subject}: {self.state}" + (
            f". {self.fix}" if self.fix else ""
        )


Check = Callable[[Mapping[str, str]], Iterator[Finding]]


def examine(environ: Mapping[str, str]) -> int:
    """Print every finding; 0 when nothing failed, else 1."""
    failed = False
    for check in (_settings, _ports, _redis, _database, _upstreams):
        for finding in check(environ):
            failed = failed or bool(finding.fix)
            print(finding, flush=True)
        if failed and check is _settings:
            break  # the others would only stumble over the same value
    return 1 if failed else 0
