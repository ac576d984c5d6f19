"""The real Codex with a home directory of its own."""

import asyncio
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes.processes import ROOT
from tests.support.processes.up import environment

BINARY = ROOT / ".venv/codex/node_modules/.bin/codex"
CONFIG = """
model = "gpt-5.5"
model_provider = "proxy"
approval_policy = "never"
sandbox_mode = "danger-full-access"
[model_providers.proxy]
name = "proxy"
base_url = "{url}"
env_key = "PROXY_KEY"
wire_api = "responses"
supports_websockets = {websockets}
"""


@dataclass(frozen=True)
class Turn:
    """The result of one `codex exec`."""

    status: int
    said: str
    shown: str  # output besides the answer

    @property
    def session(self) -> str:
        found = re.search(r"session id: (\S+)", self.shown)
        assert found, self.shown
        return found[1]


@dataclass(frozen=True)
class Codex:
    """Codex configured for `url`; its history is in `home`."""

    url: str
    home: Path
    websockets: str = "false"

    def exec(self, *words: str) -> Turn:
        """One run, which may fail."""
        done = subprocess.run(
            self._command(*words),
            env=self._environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return Turn(done.returncode, done.stdout, done.stderr)

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """The same, as a running process."""
        return await asyncio.create_subprocess_exec(
            *self._command(*words),
            env=self._environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _command(self, *words: str) -> list[str]:
        assert BINARY.exists(), "run `make setup-codex`, which `make test` does"
        config = CONFIG.format(url=self.url, websockets=self.websockets)
        (self.home / "config.toml").write_text(config)
        return [str(BINARY), "exec", "--skip-git-repo-check", *words]

    def _environment(self) -> dict[str, str]:
        own = {"CODEX_HOME": str(self.home), "PROXY_KEY": "anything"}
        return environment(self.home) | own

    def resume(self, session: str, prompt: str) -> Turn:
        """The next turn of an earlier run."""
        return self.exec("resume", session, prompt)
