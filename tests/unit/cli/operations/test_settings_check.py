"""Every setting, with values that make no sense: one line of ours for each."""

from pathlib import Path

import pytest

from libs.cli.operations.settings_check import setting_problems
from libs.common.settings import http_proxies, resources
from libs.common.settings.variables import SECRETS, SETTINGS

VARIABLES = sorted(
    SETTINGS
    | set(resources.VARIABLES)
    | {name for names in http_proxies.VARIABLES.values() for name in names}
)
NONSENSE = (
    "hush",
    "-1",
    "1e999",
    "nan",
    " ",
    '"hush"',
    "\x01\x7f",
    "hüsh",
    "9" * 9_000,
)
NOT_OURS = ("Input should", "Value error", "String should", "pydantic", "Traceback")


@pytest.mark.parametrize("variable", VARIABLES)
def test_nonsense_is_one_line_of_ours_or_none(variable: str) -> None:
    for value in NONSENSE:
        problems = setting_problems({variable: value})
        assert len(problems) <= 1, value
        for problem in problems:
            line = str(problem)
            assert line.startswith(f"{variable}: ")
            assert line.isprintable(), value
            assert len(line) < 1_000
            assert not any(words in line for words in NOT_OURS)
            if variable in SECRETS:
                assert "hush" not in line


def test_an_empty_value_is_none() -> None:
    assert setting_problems(dict.fromkeys(VARIABLES, "")) == []


def test_all_at_once_are_one_line_each() -> None:
    everything = dict.fromkeys(VARIABLES, '"hush"')
    problems = setting_problems(everything)
    assert sorted(problem.variable for problem in problems) == VARIABLES
    assert not any("hush" in str(problem) for problem in problems)


def test_a_price_list_is_read_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    (problem,) = setting_problems({"PROXY_PRICES_FILE": str(file)})
    assert str(problem).startswith("PROXY_PRICES_FILE: ")
    file.write_text("price = []")
    assert setting_problems({"PROXY_PRICES_FILE": str(file)}) == []
