"""Globs of variables that may hold keys of providers."""

import pytest

from libs.common.settings.credential_variables import BadGlob, parse_globs


def test_a_comma_list_of_globs() -> None:
    assert parse_globs(" PROVIDER_*, ACME_KEY ,") == ("PROVIDER_*", "ACME_KEY")
    assert parse_globs("") == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A-B", "not a variable name"),
        ("ok,a b", "not a variable name"),
        ("*", "matches every variable"),
        ("_?*", "matches every variable"),
        ("OPENAI_*", "PROXY_UPSTREAM_BASE_URL only"),
    ],
)
def test_a_glob_that_gives_too_much_is_refused(text: str, problem: str) -> None:
    with pytest.raises(BadGlob, match=problem):
        parse_globs(text)
