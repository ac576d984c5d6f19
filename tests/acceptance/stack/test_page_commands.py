"""The commands of the configuration page that need no Docker, word for word, in a clean
checkout. tests/lab/page.sh has the others."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.processes.ports import free_port
from tests.support.processes.processes import BIN, ROOT, bare_environment
from tests.support.processes.up import SERVICES, until

WORKER = "uv run responses-proxy-worker"
GATEWAY = "uv run responses-proxy gateway --reload"
MORPH = "uv run --extra deploy python scripts/deploy_service.py --dry-run"
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
INSTALL_SECONDS = 240.0

pytestmark = pytest.mark.timeout(2 * INSTALL_SECONDS)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files as they are now, in a repository of their own."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = output(ROOT, "git", "ls-files", "-z").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).exists():  # else: removed and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    output(folder, "git", "init", "--quiet")
    output(folder, "git", "add", "--all")
    output(folder, *GIT, "commit", "--quiet", "--message", "as it is")
    output(folder, "uv", "sync", "--python", sys.executable)
    return folder


def environment(**settings: str) -> dict[str, str]:
    environ = bare_environment()
    environ.pop("VIRTUAL_ENV", None)
    return environ | {"PATH": f"{BIN}{os.pathsep}{environ['PATH']}"} | settings


def output(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def settings(valkey: str, tmp_path: Path) -> dict[str, str]:
    return {
        **{variable: str(free_port()) for variable in SERVICES},
        "PROXY_REDIS_URL": valkey,
        "PROXY_DATA_DIR": str(tmp_path / "data"),
        "PROXY_SQLITE_URL": f"sqlite:///{tmp_path / 'proxy.sqlite3'}",
    }


@contextmanager
def started(
    checkout: Path, command: str, settings: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            shlex.split(command),
            cwd=checkout,
            env=environment(**settings),
            stdout=sink,
            stderr=sink,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)


@pytest.mark.parametrize(
    ("command", "variable", "path"),
    [
        (WORKER, "PROXY_INGEST_PORT", "/readyz"),
        (GATEWAY, "PROXY_PORT", "/healthz"),
    ],
)
def test_it_serves_until_sigterm(
    checkout: Path,
    settings: dict[str, str],
    tmp_path: Path,
    command: str,
    variable: str,
    path: str,
) -> None:
    url = f"http://127.0.0.1:{settings[variable]}{path}"
    log = tmp_path / "log"

    def serves() -> bool:
        try:
            return httpx.get(url, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    with started(checkout, command, settings, log) as process:
        until(serves, 60, log.read_text)
        process.terminate()
        assert process.wait(20) == 0, log.read_text()


@pytest.mark.skipif(
    not (ROOT / "scripts" / "deploy_service.py").exists(), reason="no Morph script"
)
def test_the_dry_run_for_morph(checkout: Path, tmp_path: Path) -> None:
    complete = {
        "PROXY_ALLOW_OPEN_ADMIN": "",
        "MORPH_API_KEY": "morph-hush",
        "MORPH_BASE_IMAGE_ID": "morphvm-minimal",
        "OPENAI_API_KEY_1": "sk-hush-1",
        "PROXY_DATABASE_URL": "postgresql://user:hush@db.example/proxy",
    }
    for missing, code in ((None, 0), ("MORPH_API_KEY", 2)):
        given = {name: value for name, value in complete.items() if name != missing}
        log = tmp_path / f"{missing}"
        with started(checkout, MORPH, given, log) as process:
            assert process.wait(INSTALL_SECONDS) == code, log.read_text()
        assert "hush" not in log.read_text()


def test_nothing_is_left_behind(checkout: Path) -> None:
    """Runs after the others of this file. uv's lock has the index's addresses, so it
    must not be committed."""
    assert output(checkout, "git", "status", "--porcelain") == ""
    assert output(checkout, "git", "check-ignore", "uv.lock").strip() == "uv.lock"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_committed_lock_has_no_address(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()
    assert "uv.lock" not in output(ROOT, "git", "ls-files").split("\n")
