"""The command `apply`: how it reads a file and reports. What it changes:
tests/integration/cli/test_apply.py."""

import io
import json
from pathlib import Path

import pytest

from libs.cli.admin.apply import LARGEST, Report, app
from libs.cli.admin.difference import Action, Change
from libs.cli.admin.kinds import KEYS
from libs.cli.run import run_app

MINTED = Change(Action.CREATE, KEYS, "a", fields={"name": "a"})


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    monkeypatch.setattr("sys.argv", ["x", *words])
    with pytest.raises(SystemExit) as ended:
        run_app(app, "responses-proxy apply")
    assert ended.value.code == 2
    return capsys.readouterr().err.removeprefix("responses-proxy: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--file: FILE: No such file or directory. Name a file\n"),
        (b"a:\n  - \xff", "FILE:2: is not UTF-8\n"),
        (b"", "FILE:1: the file is empty\n"),
        (b"a: 1\na: 2", "FILE:2: 'a' is there twice\n"),
        (b"#" * (LARGEST + 1), "FILE:1: is larger than 4 MiB\n"),
    ],
)
def test_a_file_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes | None,
    message: str,
) -> None:
    file = tmp_path / "proxy.yaml"
    if content is not None:
        file.write_bytes(content)
    said = refused(monkeypatch, capsys, "-f", str(file))
    assert said.replace(str(file), "FILE") == message


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a: [")))
    said = refused(monkeypatch, capsys, "-f", "-")
    assert said.startswith("standard input:1: expected")


def test_a_report_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(as_documents=False, dry_run=False)
    report.tell(MINTED, "rpx_1")
    report.end()
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == [
        "        secret: rpx_1  (shown only now)",
        "1 change",
    ]
    Report(as_documents=False, dry_run=True).end()
    assert capsys.readouterr().out == "nothing to change\n"


def test_a_report_for_programs_after_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report(as_documents=True, dry_run=False)
    report.tell(MINTED, "rpx_1")
    report.end("team x: no")
    told = json.loads(capsys.readouterr().out)
    assert told["changes"][0]["secret"] == "rpx_1"
    assert told["error"] == "team x: no"
