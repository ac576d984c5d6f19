"""A running `responses-proxy up`: it answers a request, and only our processes can use
its Redis, other users cannot."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis as blocking

from libs.common.redis.keys import DEFAULT
from tests.acceptance.stack.test_up_starts import refused
from tests.support.clients.scrapes import Scraped, lint
from tests.support.processes.up import SERVICES, Up, environment, ran, running
from tests.support.values import observability

NOBODY = 65_534
PING = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(60);"
    "s.connect(sys.argv[1]); s.sendall(b'PING\\r\\n'); print(s.recv(99))"
)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """Configured with nothing but ports. Everybody may enter its data directory, as an
    earlier version left it."""
    folder = Path(tempfile.mkdtemp())
    run = folder / "data" / "run"
    run.mkdir(parents=True)
    for each in (folder, folder / "data", run):
        each.chmod(0o777)
    try:
        with running(environment(folder), folder) as up:
            up.wait_until_ready()
            yield up
    finally:
        shutil.rmtree(folder)


def test_it_says_what_it_chose(up: Up) -> None:
    assert "SIMULATED upstream (no OPENAI_API_KEY set)" in up.output
    assert "proxy.sqlite3" in up.output
    assert f"unix://{up.data_dir}/run/redis.sock" in up.output
    assert f"{up.data_dir}/logs" in up.output
    assert "WARNING    /admin is OPEN" in up.output
    assert "#token=" not in up.output


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


def url_of(up: Up) -> str:
    found = re.search(r"embedded, (\S+)", up.output)
    assert found, up.output
    return found[1]


def valkey_of(up: Up) -> int:
    (pid,) = [
        pid
        for pid in up.children()
        if b"valkey-server" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    ]
    return pid


def ping(socket: str, user: int | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-I", "-c", PING, socket]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd="/", check=False,
        user=user, group=user, extra_groups=None if user is None else [],
    )  # fmt: skip


def test_its_owner_reaches_it_by_the_url_that_is_said(up: Up) -> None:
    with blocking.Redis.from_url(url_of(up)) as client:
        assert client.exists(DEFAULT.catalogue())


def test_it_listens_on_no_port(up: Up) -> None:
    pid = valkey_of(up)
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    sockets = {os.readlink(each)[8:-1] for each in descriptors if each.exists()}
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        assert not [line for line in lines if line.split()[9] in sockets]


def test_another_user_cannot_reach_it(up: Up) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root, to become somebody else")
    socket = urlsplit(url_of(up)).path
    assert ping(socket).stdout == "b'+PONG\\r\\n'\n"
    other = ping(socket, NOBODY)
    assert "PermissionError" in other.stderr


def test_its_folder_and_socket_are_its_owners_alone(up: Up) -> None:
    socket = Path(urlsplit(url_of(up)).path)
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert socket.stat().st_mode & 0o777 == 0o700


def test_doctor_takes_the_url_that_is_said(up: Up, tmp_path: Path) -> None:
    done = ran(environment(tmp_path, PROXY_REDIS_URL=url_of(up)), "doctor")
    assert "it holds this proxy's keys" in done.stdout
