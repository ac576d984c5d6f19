"""doctor's report and exit code. What it finds is tested with the checks."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.cli.checks.finding import Context, Finding
from libs.cli.operations import doctor
from libs.common.errors import SettingError

OK = Finding("redis", "answers")
FAILED = Finding.failed("database", "does not answer", "Start it")
REFUSED = Finding.refused(SettingError("PROXY_PORT", "is taken", "Use another"))


@pytest.mark.parametrize(
    ("found", "code"),
    [((OK,), 0), ((OK, FAILED), 1), ((REFUSED, OK), 2), ((FAILED, REFUSED, OK), 2)],
)
def test_the_exit_code_is_that_of_the_worst(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: tuple[Finding, ...],
    code: int,
) -> None:
    def check(_: Context) -> Iterator[Finding]:
        yield from found

    monkeypatch.setattr(doctor, "CHECKS", (check,))
    assert doctor.examine({}) == code
    assert capsys.readouterr().out.splitlines() == [str(each) for each in found]
    assert doctor.examine({}, as_json=True) == code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["level"] for line in lines] == [each.level for each in found]
    assert {line["fix"] for line in lines} == {each.fix or None for each in found}


def test_invalid_settings_end_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.examine({"PROXY_PORT": "x", "PROXY_HOST": "a b"}) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "FAIL  PROXY_HOST",
        "FAIL  PROXY_PORT",
    ]


def test_a_file_that_cannot_be_read_ends_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"PROXY_ADMIN_TOKEN_FILE": str(tmp_path / "none"), "PROXY_LOGLEVEL": "x"}
    assert doctor.examine(environ) == 2
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("FAIL  PROXY_ADMIN_TOKEN_FILE: ")
    assert second.startswith("WARN  PROXY_LOGLEVEL: ")


def test_variables_of_clients_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    assert doctor.examine({"OPENAI_BASE_URL": "http://hush"}) == 0
    line = "ok    environment: OPENAI_BASE_URL is for clients; the proxy ignores it\n"
    assert capsys.readouterr().out == line
