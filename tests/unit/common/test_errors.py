"""Default messages, and the one line about a setting."""

import pytest

from libs.common.errors import (
    NoCatalogue,
    ProxyError,
    RedisAway,
    SettingError,
    StoreAway,
)


@pytest.mark.parametrize("kind", [ProxyError, RedisAway, NoCatalogue, StoreAway])
def test_the_docstring_is_the_default_message(kind: type[ProxyError]) -> None:
    assert str(kind()) == kind.__doc__
    assert str(kind("Gone.")) == "Gone."
    assert issubclass(kind, ProxyError)


def test_a_setting_error_is_one_line_with_variable_problem_and_fix() -> None:
    error = SettingError("PROXY_PORT", "is no port", "Write 8000")
    assert str(error) == "PROXY_PORT: is no port. Write 8000"
    assert error.variable == "PROXY_PORT"
