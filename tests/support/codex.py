"""The real Codex as a user runs it, with a home of its own."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.up import ROOT, environment

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
    """What one `codex exec` came to."""

    status: int
    said: str
    shown: str  # what it wrote beside its answer

    @property
    def session(self) -> str:
        found = re.search(r"session id: (\S+)", self.shown)
        assert found, self.shown
        return found[1]


@dataclass(frozen=True)
class Codex:
    """Codex pointed at `url`; its history is in `home`."""

    url: str
    home: Path
    websockets: str = "false"

    def exec(self, *words: str) -> Turn:
        """One run; it may fail."""
        assert BINARY.exists(), "run `make setup-codex`, which `make test` does"
        config = CONFIG.format(url=self.url, websockets=self.websockets)
        (self.home / "config.toml").write_text(config)
        own = {"CODEX_HOME": str(self.home), "PROXY_KEY": "anything"}
        done = subprocess.run(
            [BINARY, "exec", "--skip-git-repo-check", *words],
            env=environment(self.home) | own,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return Turn(done.returncode, done.stdout, done.stderr)

    def resume(self, session: str, prompt: str) -> Turn:
        """The next turn of an earlier run."""
        return self.exec("resume", session, prompt)
