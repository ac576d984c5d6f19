"""What is said about values that pydantic refuses. That every variable is covered is
tested in tests/unit/cli/operations/test_settings_check.py."""

import pytest

from libs.common.settings.services import GatewaySettings, IngestSettings


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PROXY_PORT", "0", "is not a whole number from 1 to 65535. "),
        ("PROXY_PORT", "x", "is not a whole number from 1 to 65535. Correct it, or u"),
        ("PROXY_DRAIN_SECONDS", "nan", "is not a number above 0 and up to 31536000. "),
        ("PROXY_REQUIRE_KEYS", "ja", "is not true or false. "),
        ("PROXY_FOREIGN_IDS", "ja", "is not refuse or allow. "),
        ("PROXY_ADMIN_TOKEN", "short", "is not at least 8 characters long. "),
        ("PROXY_TELEMETRY_CONSUMER", "a b", "is not a name of up to 100 ASCII "),
        ("PROXY_RETENTION_DAYS", "0", "is not a whole number from 1 to 36500. "),
    ],
)
def test_the_value_that_is_expected(variable: str, value: str, says: str) -> None:
    both = [
        error
        for model in (GatewaySettings, IngestSettings)
        for error in model.problems({variable: value})
    ]
    assert both
    assert all(str(error).startswith(f"{variable}: {says}") for error in both)


def test_one_error_for_each_variable_and_none_for_what_follows_from_it() -> None:
    # PROXY_MAX_UPSTREAM_CONNECTIONS takes its default from PROXY_MAX_CONNECTIONS.
    wrong = {"PROXY_MAX_CONNECTIONS": "x", "PROXY_PORT": "y", "PROXY_HOST": "a b"}
    errors = GatewaySettings.problems(wrong)
    assert sorted(error.variable for error in errors) == sorted(wrong)


def test_the_default_is_named() -> None:
    (error,) = GatewaySettings.problems({"PROXY_PORT": "x"})
    assert error.fix == "Correct it, or unset it for the default, 8000"
    (error,) = IngestSettings.problems({"PROXY_RETENTION_DAYS": "x"})
    assert error.fix == "Correct it, or unset it"
