"""Errors of arguments and settings are one line; a closed pipe is none."""

from typing import Annotated

import pytest
import typer

from libs.cli.checks.finding import Refused
from libs.cli.run import run_app, run_quietly
from libs.common.errors import SettingError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """A command line."""


@app.command()
def count(
    number: Annotated[int, typer.Option(min=1, max=9)] = 1,
    share: Annotated[float, typer.Option()] = 1.0,
) -> None:
    typer.echo(f"{number} {share}")


@app.command()
def refuse() -> None:
    raise Refused(
        [SettingError("A", "is wrong", "Fix"), SettingError("B", "is", "Fix")]
    )


@app.command()
def reject() -> None:
    raise SettingError("A", "is\nwrong", "Fix")


def outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[object, str, str]:
    monkeypatch.setattr("sys.argv", ["x", *words])
    with pytest.raises(SystemExit) as ended:
        run_app(app, "responses-proxy test")
    written = capsys.readouterr()
    return ended.value.code, written.out, written.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("count --number abc", "--number: is not a whole number"),
        ("count --number 1.5", "--number: is not a whole number"),
        (f"count --number {'9' * 5000}", "--number: is not a whole number"),
        ("count --number 0", "--number: is less than 1"),
        ("count --number 10", "--number: is more than 9"),
        ("count --share abc", "--share: is not a number"),
        ("count --numbr 1", "No such option: --numbr (Possible options: --number)"),
    ],
)
def test_arguments_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    says: str,
) -> None:
    code, out, err = outcome(monkeypatch, capsys, *words.split())
    help_ = "See `responses-proxy test count --help`"
    assert (code, out, err) == (2, "", f"responses-proxy: {says}. {help_}\n")


def test_settings_are_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "responses-proxy: A: is wrong. Fix\nresponses-proxy: B: is. Fix\n"
    assert outcome(monkeypatch, capsys, "refuse") == (2, "", lines)
    line = "responses-proxy: A: is wrong. Fix\n"
    assert outcome(monkeypatch, capsys, "reject") == (2, "", line)


def test_help_names_the_command_that_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = outcome(monkeypatch, capsys, "count", "--help")
    assert code == 0
    assert out.startswith("Usage: responses-proxy test count [OPTIONS]\n")


def test_a_command_that_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(monkeypatch, capsys, "count") == (0, "1 1.0\n", "")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_code_of_the_work_is_the_code_of_the_process(code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run_quietly(lambda: code)
    assert ended.value.code == code
