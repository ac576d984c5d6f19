"""Which files restart the gateway, and what stops `--reload` from starting. A test in
tests/acceptance/stack restarts a gateway."""

import socket

import pytest

from libs.cli import reload


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/src/services/gateway/app.py", True),
        ("/src/services/router/functions/leases.lua", True),
        ("/src/libs/common/store/queries/sqlite/page.sql", True),
        ("/src/services/gateway/__pycache__/app.cpython-313.pyc", False),
        ("/src/services/gateway/app.py~", False),
        ("/src/services/gateway/.app.py.swp", False),
        ("/src/services/router/dashboard/index.html", False),
    ],
)
def test_code_restarts_and_editors_files_do_not(path: str, code: bool) -> None:
    assert reload.is_code(None, path) is code


def test_the_watched_folders_exist() -> None:
    assert [folder.name for folder in reload.FOLDERS] == ["libs", "services"]
    assert all(folder.is_dir() for folder in reload.FOLDERS)


def test_a_message_names_the_first_file() -> None:
    assert reload.named(["/a/two.py", "/b/one.py"]) == "one.py and 1 more"
    assert reload.named(["/a/two.py"]) == "two.py"


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert reload.main() == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_without_watchfiles_it_names_the_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload, "find_spec", lambda _: None)

    assert "watchfiles" in refused(capsys)


def test_the_worker_in_the_gateways_process_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROXY_IN_PROCESS_WORKER", "true")

    assert "PROXY_IN_PROCESS_WORKER: is true" in refused(capsys)


def test_a_taken_port_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("PROXY_PORT", str(taken.getsockname()[1]))
        assert "PROXY_PORT" in refused(capsys)
