"""The command line: help, version, and what each command becomes."""

import os
from importlib import metadata
from pathlib import Path

import pytest

from libs.cli import command_line
from libs.cli.operations import admin_token, dead_letters, doctor
from libs.cli.run import run_app
from tests.support.processes.ports import free_port

COMMANDS = ("up", "gateway", "router", "health", "ingest", "simulate", "migrate")


class Become(Exception):
    """The command that would have replaced this process."""


def become(_: str, command: list[str]) -> None:
    raise Become(*command)


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("PROXY_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PROXY_DATA_DIR", str(tmp_path / "data"))
    for number in ("PROXY_PORT", "PROXY_ROUTER_PORT", "PROXY_HEALTH_PORT"):
        monkeypatch.setenv(number, str(free_port()))
    monkeypatch.setenv("PROXY_INGEST_PORT", str(free_port()))
    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(command_line, "raise_descriptor_limit", lambda: None)


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    monkeypatch.setattr("sys.argv", ["somewhere/__main__.py", *words])
    with pytest.raises(SystemExit) as ended:
        command_line.run()
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text = said(monkeypatch, capsys, command, "--help")
    assert text.startswith(f"Usage: responses-proxy {command} [OPTIONS]")


@pytest.mark.parametrize("module", [admin_token, dead_letters, doctor])
def test_help_of_a_command_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: object
) -> None:
    name = str(module.__name__).rpartition(".")[2].replace("_", "-")  # type: ignore[attr-defined]
    monkeypatch.setattr("sys.argv", ["x", name, "--help"])
    with pytest.raises(Become) as become:
        command_line.run()
    assert become.value.args[3:] == (f"libs.cli.operations.{name.replace('-', '_')}",
                                     "--help")  # fmt: skip
    monkeypatch.setattr("sys.argv", ["x", "--help"])
    with pytest.raises(SystemExit):
        run_app(module.app, f"responses-proxy {name}")  # type: ignore[attr-defined]
    assert capsys.readouterr().out.startswith(
        f"Usage: responses-proxy {name} [OPTIONS]"
    )
    assert f'"responses-proxy {name}"' in Path(str(module.__file__)).read_text()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["keys", "teams", "providers", "models", "apply"])
def test_commands_over_the_admin_api(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("sys.argv", ["x", name, "--json", "--help"])
    with pytest.raises(Become) as become:
        command_line.run()
    module = ["apply"] if name == "apply" else ["resources", name]
    assert become.value.args[3:] == (
        f"libs.cli.admin.{module[0]}",
        *module[1:],
        "--json",
        "--help",
    )


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = f"responses-proxy {metadata.version('responses-proxy')}\n"
    assert said(monkeypatch, capsys, "--version") == version
    monkeypatch.setattr("sys.argv", ["x", "--version"])
    with pytest.raises(SystemExit):
        command_line.run_worker()
    assert capsys.readouterr().out == version


def test_the_worker_names_itself_and_is_ingest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--help"])
    with pytest.raises(SystemExit):
        command_line.run_worker()
    out = capsys.readouterr().out
    assert out.startswith("Usage: responses-proxy-worker [OPTIONS]")
    monkeypatch.setattr("sys.argv", ["x"])
    with pytest.raises(Become) as become:
        command_line.run_worker()
    assert become.value.args[-1] == "services.ingest"


@pytest.mark.parametrize("service", ["gateway", "health", "ingest"])
def test_a_service_replaces_the_command(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setattr("sys.argv", ["x", service])
    with pytest.raises(Become) as become:
        command_line.run()
    assert become.value.args[-1] == f"services.{service}"


def test_without_a_command_help_and_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["x"])
    with pytest.raises(SystemExit) as ended:
        command_line.run()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Usage: responses-proxy [OPTIONS] COMM")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--port 70000", "--port: is more than 65535. See `responses-proxy simulate"),
        ("--port x", "--port: is not a whole number. See `responses-proxy simulate"),
        ("--keys x", "--keys: is not key=account,key=account. See `responses-proxy"),
        ("--host 203.0.113.1", "--host: is not an address of this machine. Use 127.0"),
    ],
)
def test_options_of_the_simulator(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    says: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "simulate", *words.split()])
    with pytest.raises(SystemExit) as ended:
        command_line.run()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"responses-proxy: {says}")
