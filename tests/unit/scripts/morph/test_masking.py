"""Secrets are hidden; what helps to check a plan is shown."""

import pytest

from scripts.morph.masking import MASK, Mask, secrets_of, shown


@pytest.mark.parametrize(
    "variable",
    [
        *("OPENAI_API_KEY", "OPENAI_API_KEYS", "OPENAI_API_KEY_3", "PROVIDER_ACME"),
        *("PROXY_ADMIN_TOKEN", "PROXY_SECRET_ENCRYPTION_KEY", "PROXY_NOT_KNOWN"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_masked(variable: str) -> None:
    assert shown(variable, "value-1234") == MASK
    assert Mask(secrets_of({variable: "value-1234"}))("got value-1234") == f"got {MASK}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROXY_PORT", "9000"),
        ("PROXY_UPSTREAM_BASE_URL", "https://api.openai.com/v1"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,2"),
        ("NO_PROXY", "10.0.0.0/8"),
    ],
)
def test_ordinary_settings_are_shown(variable: str, value: str) -> None:
    assert shown(variable, value) == value
    assert list(secrets_of({variable: value})) == []


@pytest.mark.parametrize(
    "variable", ["PROXY_DATABASE_URL", "DATABASE_URL", "PROXY_REDIS_URL", "https_proxy"]
)
def test_urls_lose_credentials_and_query(variable: str) -> None:
    url = "rediss://user:p%40ss-word@host:6379/0?password=query-secret"
    assert shown(variable, url) == "rediss://host:6379/0"
    mask = Mask(secrets_of({variable: url}))
    for text in (url, "user:p%40ss-word", "p%40ss-word", "p@ss-word"):
        assert mask(f"cannot use {text}.") == f"cannot use {MASK}."


def test_each_entry_of_a_list_is_a_secret() -> None:
    mask = Mask(secrets_of({"OPENAI_API_KEYS": "sk-one, sk-two-longer,sk-two"}))
    assert mask("sk-two-longer sk-two sk-one") == f"{MASK} {MASK} {MASK}"


def test_a_value_stays_on_one_line() -> None:
    assert shown("PROXY_REDACT", "input\n  [*]") == "input [*]"


def test_an_invalid_url_is_still_masked() -> None:
    url = "postgresql://u:secret-1@[bad/db"
    assert "secret-1" not in Mask(secrets_of({"DATABASE_URL": url}))(f"x {url}")
