"""`responses-proxy up`: from an empty directory to an answer, and a clean shutdown."""

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.support.clients.scrapes import Scraped, lint
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT
from tests.support.processes.up import (
    COMMAND,
    READY_SECONDS,
    SERVICES,
    STOP_SECONDS,
    Up,
    environment,
    parent_of,
    running,
    until,
)
from tests.support.values import observability


def refused(environ: Mapping[str, str], *command: str) -> str:
    """Run a command that must fail; returns its only line."""
    done = subprocess.run(
        [*COMMAND, *command],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A ready `up`, configured with nothing but ports."""
    tmp_path = tmp_path_factory.mktemp("up")
    with running(environment(tmp_path), tmp_path) as up:
        up.wait_until_ready()
        yield up


def test_it_says_what_it_chose(up: Up) -> None:
    assert "SIMULATED upstream (no OPENAI_API_KEY set)" in up.output
    assert "proxy.sqlite3" in up.output
    assert f"unix://{up.data_dir}/run/redis.sock" in up.output
    assert f"{up.data_dir}/logs" in up.output


def test_the_printed_request_is_answered(up: Up) -> None:
    (line,) = [line for line in up.output.splitlines() if line.startswith("  curl ")]
    _, url, _, header, _, body = shlex.split(line)
    name, _, value = header.partition(": ")

    answer = httpx.post(url, headers={name: value}, content=body, timeout=60)

    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
    assert answer.headers["x-proxy-resource-id"].startswith("openai-")


def test_every_service_is_ready(up: Up) -> None:
    up.all_answer("/readyz")


def test_every_metric_follows_prometheus_conventions(up: Up) -> None:
    for variable in SERVICES:
        found = metrics_of(up, variable)
        assert lint(found.text) == [], variable


def metrics_of(up: Up, variable: str) -> Scraped:
    answer = httpx.get(f"http://127.0.0.1:{up.environ[variable]}/metrics", timeout=60)
    assert answer.status_code == 200
    return Scraped(answer.text)


def test_dashboards_and_alerts_name_metrics_that_exist(up: Up) -> None:
    described = set[str]().union(
        *(metrics_of(up, variable).described for variable in SERVICES)
    )
    named = observability.named_metrics()
    assert len(named) > 30
    assert sorted(named - described) == []


def test_every_process_logs_json(up: Up) -> None:
    logs = sorted(Path(up.data_dir, "logs").glob("*.log"))
    programs = {"gateway", "health", "ingest", "redis", "router", "simulator"}
    assert {path.stem for path in logs} >= {*programs, "supervisord"}
    for path in logs:
        for line in map(json.loads, path.read_text().splitlines()):
            assert line["service"] == path.stem
            assert {"action", "level", "message", "timestamp"} <= line.keys()
    assert {path.stem for path in logs if path.stat().st_size} >= {
        *programs,
        "supervisord",
    }


def test_a_second_one_on_the_same_data_refuses(up: Up, tmp_path: Path) -> None:
    environ = environment(tmp_path, PROXY_DATA_DIR=up.data_dir)

    line = refused(environ, "up")

    assert line.startswith("responses-proxy: PROXY_DATA_DIR: ")
    assert "another `responses-proxy up` is using" in line


@pytest.mark.parametrize("command", ["up", "gateway"])
def test_a_port_that_is_taken(up: Up, tmp_path: Path, command: str) -> None:
    environ = environment(tmp_path, PROXY_PORT=up.environ["PROXY_PORT"])

    assert refused(environ, command).startswith("responses-proxy: PROXY_PORT: ")


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


def test_a_token_of_ones_own_is_not_shown_until_sigint(tmp_path: Path) -> None:
    environ = environment(tmp_path, PROXY_ADMIN_TOKEN="hush-hush-hush")
    with running(environ, tmp_path) as up:
        up.wait_until_ready()
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


def test_without_sql_it_starts_and_says_so(tmp_path: Path) -> None:
    environ = environment(tmp_path, PROXY_SQLITE_URL=f"sqlite:///{tmp_path}")
    with running(environ, tmp_path) as up:
        up.wait_until_ready()

        assert "warning    ingest is not ready" in up.output


def test_doctor_finds_nothing_wrong_with_no_configuration(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "doctor"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
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
    done = subprocess.run(
        [*COMMAND, "doctor"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
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
        done = subprocess.run(
            [*COMMAND, "doctor"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=False,
        )
        (line,) = [x for x in done.stdout.splitlines() if "admin API" in x]
        assert line.startswith(mark)
        assert ("admin-token --new" in line) == (mark == "FAIL ")
        assert "hush" not in done.stdout + done.stderr
