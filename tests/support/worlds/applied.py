"""A running proxy beside which the commands over the admin API run, and their files."""

import asyncio
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from libs.cli.admin import apply, resources
from libs.cli.run import run_app
from tests.support.processes.fleet import Fleet, Plan
from tests.support.values.blocks import blocks_of

PAGE = "docs/apply.md"
TOKEN = "open-sesame-open"
UPSTREAM_KEY = "sk-theirs-hush"
PLAN = Plan(
    {"sk-sim-a": "acct-a"},
    gateways=1,
    services=("router", "ingest"),
    settings={
        "PROXY_ADMIN_TOKEN": TOKEN,
        "PROXY_ALLOW_OPEN_ADMIN": "false",
        "PROXY_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "PROXY_HEARTBEAT_SECONDS": "0.2",
        "PROVIDER_ACME": UPSTREAM_KEY,
    },
)
OTHERS = """
providers:
  - {id: beta, provider_type: custom, base_url: "URL", api_key_env: BETA_KEY}
  - {id: more, credential_ref: "env:OPENAI_MORE_KEY"}
  - {id: east, provider_type: azure, base_url: "AZURE", api_key_env: BETA_KEY}
prices: []
models: []
teams: []
keys:
  - {name: search-ci, pools: [batch, cheap], enabled: false}
  - {name: paused, enabled: false}
"""


@dataclass(frozen=True)
class World:
    fleet: Fleet
    theirs: str  # the address of the provider
    folder: Path

    @property
    def gateway(self) -> str:
        return self.fleet.gateways[0].origin

    @property
    def file(self) -> str:
        """The documented file, with an address that exists."""
        (text,) = (b.text for b in blocks_of(PAGE) if b.language == "yaml")
        assert text.count("https://api.acme.example/v1") == 1
        return text.replace("https://api.acme.example/v1", self.theirs)

    @property
    def others(self) -> str:
        azure = self.theirs.replace("/v1", "/openai/v1")
        return OTHERS.replace("URL", f"{self.theirs}/").replace("AZURE", azure)

    async def rows(self, kind: str) -> list[dict[str, Any]]:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(headers=headers, timeout=20) as client:
            answer = await client.get(f"{self.fleet.admin}/{kind}")
        rows: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
        return [row for row in rows if row.get("revoked_at") is None]

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def logs(self) -> str:
        logs = self.folder.parent.glob("*.log")
        return "".join(log.read_text() for log in logs)


class Shell:
    """Runs commands, as the installed program does after it has read its settings."""

    def __init__(
        self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._patch = patch
        self._capsys = capsys

    async def run(self, line: str, code: int = 0) -> str:
        """What it prints; the errors if it fails."""
        _, name, *words = shlex.split(line)
        module, prefix = (
            (apply, "responses-proxy apply")
            if name == "apply"
            else (resources, "responses-proxy")
        )
        argv = words if module is apply else [name, *words]
        self._patch.setattr("sys.argv", ["x", *argv])
        # In a thread: this loop serves the upstream.
        ended = await asyncio.to_thread(_exited, module, prefix)
        out, err = self._capsys.readouterr()
        assert ended == code, out + err
        return out if code == 0 else err


def _exited(module: ModuleType, name: str) -> object:
    try:
        run_app(module.app, name)
    except SystemExit as ended:
        return ended.code
