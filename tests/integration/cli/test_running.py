"""A running `up`: what it was told, and what `doctor` says beside it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.cli.test_refusals import compared
from tests.support.processes.up import SERVICES, Up, environment, ran, running

TOKEN = "hush-hush-hush"
MISSPELT = "PROXY_LOGLEVEL"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """With its token in a file, and a variable that is misspelt."""
    folder = tmp_path_factory.mktemp("up")
    file = folder / "token"
    file.write_text(f"{TOKEN}\n")
    settings = {"PROXY_ADMIN_TOKEN_FILE": str(file), MISSPELT: "debug"}
    with running(environment(folder, **settings), folder) as up:
        up.wait_until_ready()
        yield up


def test_a_secret_is_read_from_its_file(up: Up) -> None:
    assert httpx.get(f"{up.admin}/state", timeout=20).status_code == 401
    headers = {"authorization": f"Bearer {TOKEN}"}
    state = httpx.get(f"{up.admin}/state", headers=headers, timeout=20)
    assert state.status_code == 200
    assert "hush" not in up.output_or_logs()


def test_a_misspelt_variable_is_named_once(up: Up) -> None:
    warning = f"warning: {MISSPELT}: is not a variable of this proxy. Did you mean "
    assert up.output.count(warning) == 1
    assert up.output_or_logs().count(MISSPELT) == 1


def test_doctor_beside_it_finds_nothing_wrong(up: Up) -> None:
    done = ran(up.environ, "doctor")
    assert done.returncode == 0, done.stdout
    assert "ok    data directory: in use by the running `responses-proxy up`" in (
        done.stdout.splitlines()
    )
    assert done.stdout.count("in use by a service that is ready") == len(SERVICES)
    assert done.stdout.count(f"WARN  {MISSPELT}: ") == 1
    assert "hush" not in done.stdout


def test_a_second_one_on_its_ports_is_refused_by_both(up: Up, tmp_path: Path) -> None:
    ports = {name: up.environ[name] for name in SERVICES}
    environ = environment(tmp_path, **ports)
    lines = compared(environ)
    assert [line.partition(":")[0] for line in lines] == list(SERVICES)
    # The same, said to be beside it: as in a container that has one service.
    done = ran(environ, "doctor", "--running")
    assert done.returncode == 0, done.stdout


def test_a_second_one_on_its_data_is_refused_by_both(up: Up, tmp_path: Path) -> None:
    (line,) = compared(environment(tmp_path, PROXY_DATA_DIR=up.data_dir))
    assert "another `responses-proxy up` is using" in line
