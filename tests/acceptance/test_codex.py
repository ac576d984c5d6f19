"""The real Codex through the whole product."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sql import fetch
from tests.support.up import ROOT, Up, environment, running, until

CODEX = ROOT / ".venv/codex/node_modules/.bin/codex"
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


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    tmp_path = tmp_path_factory.mktemp("up")
    with running(environment(tmp_path), tmp_path) as up:
        up.wait_until_ready()
        yield up


@pytest.mark.parametrize(
    "websockets",
    [
        pytest.param("false", id="http"),
        # Refused with 426, upon which Codex goes on over HTTP at once.
        pytest.param("true", id="websocket refused"),
    ],
)
def test_a_turn_with_a_tool_call(up: Up, tmp_path: Path, websockets: str) -> None:
    before = {id_ for (id_,) in fetch(up.database, "SELECT id FROM sessions")}

    said = codex(up, tmp_path, websockets, "please run-tool")

    assert "Simulated answer" in said.stdout, said.stderr

    def sessions() -> list[tuple[str, int, str]]:
        rows = fetch(up.database, "SELECT id, requests, last_resource_id FROM sessions")
        return [row for row in rows if row[0] not in before and row[1] >= 2]

    until(sessions, 10, lambda: f"sessions: {sessions()}")
    ((session, requests, resource),) = sessions()
    rows = fetch(
        up.database,
        "SELECT resource_id, outcome, transport, usage_state FROM requests"
        f" WHERE session_id = '{session}'",
    )
    assert rows == [(resource, "completed", "sse", "final")] * requests
    assert said.stderr.count(session) == 1


def codex(
    up: Up, home: Path, websockets: str, prompt: str
) -> "subprocess.CompletedProcess[str]":
    """One `codex exec` with a configuration of its own."""
    assert CODEX.exists(), "run `make setup-codex`, which `make test` does"
    (home / "config.toml").write_text(CONFIG.format(url=up.url, websockets=websockets))
    return subprocess.run(
        [CODEX, "exec", "--skip-git-repo-check", prompt],
        env={**up.environ} | {"CODEX_HOME": str(home), "PROXY_KEY": "anything"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
