"""Runs `scripts/deploy_service.py` as operators do, in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from cryptography.fernet import Fernet

from tests.support.morph.api import KEY
from tests.support.preloaded import programs

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "deploy_service.py"
SECONDS = 90
MODULES = ("scripts.morph.main",)

SECRETS = {
    "OPENAI_API_KEY_1": "sk-first-4b1d8e",
    "OPENAI_API_KEY_2": "sk-second-9c2f7a",
    "OPENAI_API_KEY_3": "sk-third-1e6b3d",
    "OPENAI_API_KEY_4": "sk-fourth-8a5c0f",
    "PROXY_DATABASE_URL": "postgresql://proxy:pass-d41d8c@db.example.com/proxy",
    "PROXY_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
    "PROXY_ADMIN_TOKEN": "admin-token-5f2e7b",
    "PROVIDER_ACME": "acme-key-0d9b6e",
}
COMPLETE = {
    **SECRETS,
    "MORPH_API_KEY": KEY,
    "MORPH_BUILDER_SNAPSHOT_ID": "snapshot_builder",
    "PROXY_MAX_ATTEMPTS": "5",
    "PROXY_ALLOWED_HOSTS": "proxy.example.com",
    "OPENAI_RESOURCE_WEIGHTS": "4,3,2,1",
}
# What must never be seen: the secrets, and the password within the URL.
HIDDEN = {*SECRETS.values(), "pass-d41d8c", KEY}


@dataclass(frozen=True)
class Done:
    """A process that ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Only what is given, and what a process needs. Configuration files of the SDK are
    out of reach."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **given}


class Running:
    """The command in a process of its own, with its imports made before. `prelude` is
    code that runs in the process first."""

    def __init__(
        self, given: Mapping[str, str], *arguments: str, prelude: str = ""
    ) -> None:
        argv = [str(SCRIPT), *arguments]
        code = (
            f"import runpy, sys; sys.argv = {argv!r}; sys.path.insert(0, '')\n"
            f"{prelude}\nrunpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        )
        command, environ = [sys.executable, "-c", code], environment(given)
        with ExitStack() as opened:
            self._files = [opened.enter_context(TemporaryFile("w+")) for _ in range(2)]
            self._opened = opened.pop_all()
        out, err = (file.fileno() for file in self._files)
        self._process: programs.Program | subprocess.Popen[bytes] = programs.start(
            command, environ, ROOT, (out, err), MODULES
        ) or subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=err)

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> Done:
        """Wait for the end of the process."""
        try:
            code = self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            raise
        with self._opened:
            for file in self._files:
                file.seek(0)
            return Done(code, *(file.read() for file in self._files))


def run(given: Mapping[str, str], *arguments: str, prelude: str = "") -> Done:
    """Run the command to its end."""
    return Running(given, *arguments, prelude=prelude).ended()
