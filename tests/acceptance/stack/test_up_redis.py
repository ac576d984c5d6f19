"""Only our processes can use the embedded Redis of `up`, other users cannot."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis as blocking

from libs.common.redis import keys
from tests.support.processes.processes import ROOT
from tests.support.processes.up import COMMAND, Up, environment, running

NOBODY = 65_534
PING = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(60);"
    "s.connect(sys.argv[1]); s.sendall(b'PING\\r\\n'); print(s.recv(99))"
)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """With a data directory that everybody may enter, as an earlier version left it."""
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
        assert client.exists(keys.catalogue())


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


def test_a_data_directory_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    done = subprocess.run(
        [*COMMAND, "up"],
        env=environment(tmp_path, PROXY_DATA_DIR=str(long)),
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("responses-proxy: PROXY_DATA_DIR: ")


def test_doctor_takes_the_url_that_is_said(up: Up, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "doctor"],
        env=environment(tmp_path, PROXY_REDIS_URL=url_of(up)),
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert "it holds this proxy's keys" in done.stdout
