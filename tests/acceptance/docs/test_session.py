"""The commands of README.md and some pages, executed in their order on a product that
`make run` started, as a newcomer would. Ports and secrets of this run replace those of
the documents; names of fields in the output are compared."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from libs.cli.commands import service_command
from tests.support.processes import processes
from tests.support.processes.ports import free_port
from tests.support.processes.processes import BIN, Process
from tests.support.processes.up import Up, environment, running, until
from tests.support.values.blocks import Block, blocks_of, commands

NAMES = re.compile(r'"(\w+)":')
END = "\x1e"  # printed behind the output of a command
ALIAS_SECONDS = 60.0  # usually 2; only a failure takes that long
SIMULATED = "127.0.0.1:46171"  # the simulated upstream in README.md


class Session:
    """A running product, and how to execute documented commands on it."""

    def __init__(self, folder: Path, up: Up) -> None:
        self.folder = folder
        self.environ = dict(up.environ)
        self._simulated = _said(r"SIMULATED upstream .*http://(\S+)/v1", up)
        self.environ["PROXY_REDIS_URL"] = _said(r"embedded, (\S+)", up)

    @contextmanager
    def gateway(self, **settings: str) -> Iterator["Session"]:
        """The same with another gateway, which has other settings."""
        other = copy(self)
        other.environ = {**self.environ, "PROXY_PORT": str(free_port()), **settings}
        command = service_command("gateway", other.environ)
        process = Process(command, other.environ, self.folder / "gateway.log")
        origin = f"http://127.0.0.1:{other.environ['PROXY_PORT']}"
        with processes.running(process, f"{origin}/healthz"):
            yield other

    def here(self, text: str) -> str:
        """With this run's addresses."""
        for documented in ("localhost:8000", "127.0.0.1:8000"):
            text = text.replace(documented, f"127.0.0.1:{self.environ['PROXY_PORT']}")
        return text.replace(SIMULATED, self._simulated)

    def run(self, script: list[str]) -> list[str]:
        """The outputs of the commands, which run in one shell."""
        lines = [f"{self.here(command)}\nprintf '\\036'" for command in script]
        done = self._executed(["bash", "-euo", "pipefail", "-c", "\n".join(lines)])
        return done.split(END)[:-1]

    def python(self, source: str, **environ: str) -> str:
        given = f"import os\nfrom openai import *\n{self.here(source)}"
        return self._executed([sys.executable, "-c", given], **environ)

    def _executed(self, command: list[str], **environ: str) -> str:
        path = f"{BIN}:{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, "PATH": path, **environ},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _said(pattern: str, up: Up) -> str:
    found = re.search(pattern, up.output)
    assert found, up.output
    return found[1]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The product, by `make run`. Its virtual environment is this one."""
    folder = tmp_path_factory.mktemp("session") / "checkout"
    folder.mkdir()
    key = Fernet.generate_key().decode()
    own = {"PROXY_SECRET_ENCRYPTION_KEY": key, "PROXY_ALLOW_OPEN_ADMIN": "false"}
    environ = environment(folder, **own)
    stamp = [f"--old-file={BIN.parent}/.run-stamp", f"VENV={BIN.parent}"]
    command = ["make", "--no-print-directory", *stamp, "run"]
    with running(environ, folder, command) as up:
        up.wait_until_ready()
        yield Session(folder, up)


def documented(page: str, language: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.language == language]


def parsed(text: str) -> Any:
    """The JSON of an output; None for one that is shortened, or other text."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_the_commands_of_the_docs(session: Session) -> None:
    pages = ("README.md", "docs/api.md", "docs/policies.md")
    blocks = [block for page in pages for block in documented(page, "console")]
    pairs = [pair for block in blocks for pair in commands(block)]
    # The alias takes effect within two seconds; a newcomer is not as quick as this.
    (uses_alias,) = [pair for pair in pairs if pair[1].startswith("HTTP/")]
    pairs.remove(uses_alias)
    outputs = session.run([command for command, _ in pairs])
    assert len(pairs) == len(outputs) == 8
    for (command, wanted), output in zip(pairs, outputs, strict=True):
        missing = set(NAMES.findall(wanted)) - set(NAMES.findall(output))
        assert missing == set(), f"{command}\n{output}"
        whole = parsed(wanted)
        if whole is not None:
            assert parsed(output).keys() == whole.keys(), command

    def answered() -> bool:
        (output,) = session.run([uses_alias[0]])
        seen = set(output.replace("acme-2", "acme-1").splitlines())
        return set(uses_alias[1].partition("...")[0].splitlines()) <= seen

    until(answered, ALIAS_SECONDS, lambda: uses_alias[0])


def test_python_of_the_readme(session: Session) -> None:
    (block,) = documented("README.md", "pycon")
    (with_key, answer), (without, refusal) = commands(block)
    (client,) = documented("README.md", "python")
    assert session.python(client.text) == ""
    environ = {"PROXY_KEY": minted(session)}
    said = session.python(f"print(repr({with_key}))", **environ)
    assert re.sub("account-.", "account-a", said) == answer
    # The last one is refused where keys are required.
    with session.gateway(PROXY_REQUIRE_KEYS="true") as other:
        attempt = (
            f"try:\n  {without}\nexcept Exception as e:\n  print(type(e).__name__, e)"
        )
        assert other.python(attempt) == refusal


def minted(session: Session) -> str:
    """A proxy key, by the commands of README.md."""
    export, mint = documented("README.md", "console")[:2]
    found = session.run([c for block in (export, mint) for c, _ in commands(block)])
    secret: str = json.loads(found[-1])["secret"]
    return secret
