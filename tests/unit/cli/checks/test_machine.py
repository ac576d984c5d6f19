"""The data directory, its lock and token, and ports. What is refused is compared with
`up` in tests/integration/cli/test_refusals.py."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from libs.cli.checks import machine
from libs.cli.checks.finding import Context, Level
from tests.support.processes.ports import free_port


def context(folder: Path, **settings: str) -> Context:
    return Context({"PROXY_DATA_DIR": str(folder / "data"), **settings}, 0.1)


def test_a_directory_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    (finding,) = machine.data_directory(context(tmp_path))
    assert finding.level is Level.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["data", "data/logs", "data/run"])
def test_a_file_in_the_place_of_a_directory(tmp_path: Path, part: str) -> None:
    file = tmp_path / part
    file.parent.mkdir(exist_ok=True)
    file.touch()
    (finding,) = machine.data_directory(context(tmp_path))
    assert finding.level is Level.REFUSED
    assert finding.state.endswith("which is not writable (Not a directory)")


def test_a_directory_of_another_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root writes everywhere")
    (finding,) = machine.data_directory(context(tmp_path))
    assert finding.state.endswith("which is not writable (Permission denied)")


def test_a_lock_that_nobody_holds_stays_free(tmp_path: Path) -> None:
    assert list(machine.lock(context(tmp_path))) == []
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "lock").open("w") as lock:
        assert list(machine.lock(context(tmp_path))) == []
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ports = dict.fromkeys(("PROXY_PORT",), str(free_port()))
        (finding,) = machine.lock(context(tmp_path, **ports))
    assert finding.level is Level.REFUSED


def test_a_port_is_taken_by_something_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        (finding,) = machine.port(context(tmp_path, PROXY_PORT=port), "gateway")
    assert (finding.subject, finding.level) == ("PROXY_PORT", Level.REFUSED)


def test_an_address_of_another_machine_is_said_once(tmp_path: Path) -> None:
    (finding,) = machine.ports(context(tmp_path, PROXY_HOST="203.0.113.1"))
    assert (finding.subject, finding.level) == ("PROXY_HOST", Level.REFUSED)


def test_a_wrong_internal_address_names_its_own_variable(tmp_path: Path) -> None:
    seen = list(machine.ports(context(tmp_path, PROXY_INTERNAL_HOST="203.0.113.1")))
    assert [finding.subject for finding in seen if finding.level is Level.REFUSED] == [
        "PROXY_INTERNAL_HOST"
    ]


def test_a_host_name_with_a_label_that_is_too_long(tmp_path: Path) -> None:
    (finding,) = machine.ports(context(tmp_path, PROXY_HOST="a" * 300))
    assert (finding.subject, finding.level) == ("PROXY_HOST", Level.REFUSED)


@pytest.mark.parametrize(
    ("mode", "level"), [(0o600, Level.OK), (0o640, Level.FAILED), (0o604, Level.FAILED)]
)
def test_a_token_that_others_may_read(tmp_path: Path, mode: int, level: Level) -> None:
    file = tmp_path / "data" / "admin-token"
    file.parent.mkdir()
    file.write_text("hush-hush-hush\n")
    file.chmod(mode)
    (finding,) = machine.admin_token(context(tmp_path))
    assert finding.level is level
    assert "hush" not in str(finding)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "the first start will create a token"),
        ({"PROXY_ADMIN_TOKEN": "hush-hush"}, "requires the token in PROXY_ADMIN_TOKEN"),
        ({"PROXY_ALLOW_OPEN_ADMIN": "true"}, "OPEN to everyone who can reach it"),
    ],
)
def test_who_may_use_the_admin_api(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    (finding,) = machine.admin_token(context(tmp_path, **settings))
    assert finding.state.startswith(says)
