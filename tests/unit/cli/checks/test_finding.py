"""Findings, and what refuses a start."""

from collections.abc import Iterator

import pytest

from libs.cli.checks.finding import Context, Finding, Refused, refuse
from libs.common.errors import SettingError

ERROR = SettingError("PROXY_X", "is wrong", "Correct it")


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding("settings", "valid"), "ok    settings: valid"),
        (Finding.failed("redis", "away", "Start it"), "FAIL  redis: away. Start it"),
        (Finding.refused(ERROR), f"FAIL  {ERROR}"),
        (Finding.warning(ERROR), f"WARN  {ERROR}"),
    ],
)
def test_one_line_each(finding: Finding, line: str) -> None:
    assert str(finding) == line


def test_the_first_check_that_refuses_is_the_last_that_runs() -> None:
    ran = []

    def well(_: Context) -> Iterator[Finding]:
        ran.append("well")
        yield Finding("a", "fine")
        yield Finding.failed("b", "away", "Start it")

    def wrong(_: Context) -> Iterator[Finding]:
        ran.append("wrong")
        yield Finding.refused(ERROR)
        yield Finding.refused(SettingError("PROXY_Y", "is wrong too", "Correct it"))

    context = Context({}, 0.1)
    refuse((well,), context)
    with pytest.raises(Refused) as refused:
        refuse((well, wrong, well), context)
    assert ran == ["well", "well", "wrong"]
    assert [p.variable for p in refused.value.problems] == ["PROXY_X", "PROXY_Y"]
