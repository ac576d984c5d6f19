"""Starts of `responses-proxy up` from an empty directory, which succeed or not, and
clean ends; and what `doctor` says before."""

import re
import signal
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.support.processes.ports import free_port
from tests.support.processes.up import (
    READY_SECONDS,
    STOP_SECONDS,
    Up,
    environment,
    parent_of,
    ran,
    running,
    until,
)


def refused(environ: Mapping[str, str], command: str) -> str:
    """Run a command that must fail; returns its only line."""
    done = ran(environ, command)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("command", ["up", "gateway", "router", "health", "ingest"])
def test_a_setting_that_makes_no_sense(tmp_path: Path, command: str) -> None:
    environ = environment(tmp_path, OPENAI_API_KEYS="sk-hush hush")

    line = refused(environ, command)

    assert line.startswith("responses-proxy: OPENAI_API_KEYS: ")
    assert "hush" not in line


def assert_ends_everything(up: Up, number: signal.Signals) -> None:
    pids = [up.process.pid, *up.children()]
    up.process.send_signal(number)
    assert up.process.wait(STOP_SECONDS) == 0
    assert [pid for pid in pids if parent_of(pid)] == []


def assert_kill_9_leaves_nothing_behind(up: Up) -> None:
    pids = up.children()
    up.process.kill()

    def left() -> list[int]:
        return [pid for pid in pids if parent_of(pid)]

    until(lambda: not left(), STOP_SECONDS, lambda: f"left: {left()}")


# How it ends is tested where it runs for another test: a start takes much CPU.


def test_the_banner_has_a_link_that_logs_in_until_sigterm(tmp_path: Path) -> None:
    environ = environment(tmp_path, PROXY_ALLOW_OPEN_ADMIN="")
    with running(environ, tmp_path) as up:
        up.wait_until_ready()
        (token,) = re.findall(r"  dashboard  http://\S+/#token=(\S+)\n", up.output)
        assert httpx.get(f"{up.admin}/state", timeout=60).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        state = httpx.get(f"{up.admin}/state", headers=headers, timeout=60)
        assert (state.status_code, state.json()["admin"]) == (200, "token")
        assert_ends_everything(up, signal.SIGTERM)
    with running(environ, tmp_path) as up:  # the same on a later start
        up.wait_until_ready()
        assert f"/#token={token}\n" in up.output
        assert_kill_9_leaves_nothing_behind(up)


def test_without_sql_and_with_a_token_of_ones_own_until_sigint(tmp_path: Path) -> None:
    no_file = f"sqlite:///{tmp_path}"
    own = {"PROXY_ADMIN_TOKEN": "hush-hush-hush", "PROXY_SQLITE_URL": no_file}
    with running(environment(tmp_path, **own), tmp_path) as up:
        up.wait_until_ready()
        assert "warning    ingest is not ready" in up.output
        assert "requires the token in PROXY_ADMIN_TOKEN" in up.output
        assert "#token=" not in up.output
        assert "hush" not in up.output
        assert not Path(up.data_dir, "admin-token").exists()
        assert_ends_everything(up, signal.SIGINT)


def test_a_service_that_cannot_start_ends_everything(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "services"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('no such luck')")
    environ = environment(tmp_path, PYTHONPATH=str(broken.parent))
    with running(environ, tmp_path) as up:
        assert up.process.wait(READY_SECONDS) == 1

        assert re.search(r"responses-proxy: (\w+ did not start|not ready)", up.output)
        assert "no such luck" in up.output
        assert "stopping all services" in up.output
        assert up.children() == []


def test_doctor_finds_nothing_wrong_with_no_configuration(tmp_path: Path) -> None:
    done = ran(environment(tmp_path), "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout


def test_doctor_names_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    port = free_port()
    environ = environment(
        tmp_path,
        OPENAI_API_KEY="sk-hush",
        PROXY_UPSTREAM_BASE_URL=f"http://127.0.0.1:{port}/v1",
        PROXY_REDIS_URL=f"redis://:hush@127.0.0.1:{port}/0",
        PROXY_DATABASE_URL=f"postgresql://u:hush@127.0.0.1:{port}/d",
    )
    done = ran(environ, "doctor")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["redis", "database", "upstream"]
    assert "hush" not in done.stdout + done.stderr


def test_doctor_sees_a_token_that_others_may_read(tmp_path: Path) -> None:
    environ = environment(tmp_path, PROXY_ALLOW_OPEN_ADMIN="")
    file = Path(environ["PROXY_DATA_DIR"], "admin-token")
    file.parent.mkdir()
    file.write_text("hush-hush-hush\n")
    for mode, mark in ((0o600, "ok "), (0o640, "FAIL ")):
        file.chmod(mode)
        done = ran(environ, "doctor")
        (line,) = [x for x in done.stdout.splitlines() if "admin API" in x]
        assert line.startswith(mark)
        assert ("admin-token --new" in line) == (mark == "FAIL ")
        assert "hush" not in done.stdout + done.stderr


def test_a_data_directory_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    line = refused(environment(tmp_path, PROXY_DATA_DIR=str(long)), "up")
    assert line.startswith("responses-proxy: PROXY_DATA_DIR: ")
