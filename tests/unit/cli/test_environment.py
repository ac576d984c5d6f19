"""The environment of a command: files read, mistakes reported once."""

import os
from pathlib import Path

import pytest

from libs.cli.checks.finding import Refused
from libs.cli.environment import examined, prepare

MISSPELT = "PROXY_LOGLEVEL"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.startswith(("PROXY_", "OPENAI_")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_an_unknown_variable_is_a_warning_unless_strict() -> None:
    _, errors, warnings = examined({MISSPELT: "x"})
    assert (errors, [w.variable for w in warnings]) == ([], [MISSPELT])
    _, errors, warnings = examined({MISSPELT: "x", "PROXY_STRICT_ENV": "true"})
    assert ([e.variable for e in errors], warnings) == ([MISSPELT], [])


def test_a_strictness_that_makes_no_sense_is_reported_elsewhere() -> None:
    _, errors, warnings = examined({MISSPELT: "x", "PROXY_STRICT_ENV": "perhaps"})
    assert (errors, len(warnings)) == ([], 1)


def test_it_is_prepared_for_this_process_and_its_children(
    bare: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text("hush-hush\n")
    bare.setenv("PROXY_ADMIN_TOKEN_FILE", str(file))
    bare.setenv("PROXY_ADMIN_TOKEN", "")
    bare.setenv(MISSPELT, "hush")
    prepare()
    assert os.environ["PROXY_ADMIN_TOKEN"] == "hush-hush"
    assert "PROXY_ADMIN_TOKEN_FILE" not in os.environ
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == (
        f"responses-proxy: warning: {MISSPELT}: is not a variable of this proxy. "
        "Did you mean PROXY_LOG_LEVEL?\n"
    )


def test_files_that_cannot_be_read_are_refused_together(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("OPENAI_API_KEY_1_FILE", "PROXY_ADMIN_TOKEN_FILE")
    for name in names:
        bare.setenv(name, str(tmp_path / "nothing"))
    with pytest.raises(Refused) as refused:
        prepare()
    assert tuple(p.variable for p in refused.value.problems) == names
