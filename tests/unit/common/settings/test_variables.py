"""Which variables are ours, and which names are mistakes."""

import pytest

from libs.common.settings.variables import (
    FILE,
    MODELS,
    SECRETS,
    SETTINGS,
    is_known,
    is_of_clients,
    quoted_values,
    unknown_variables,
)

MISTAKES = {
    "PROXY_REQEST_TIMEOUT": "PROXY_REQUEST_TIMEOUT_SECONDS",
    "PROXY_DATABSE_URL": "PROXY_DATABASE_URL",
    "PROXY_ADMIN_TOKN_FILE": "PROXY_ADMIN_TOKEN_FILE",
    "PROXY_LOGLEVEL": "PROXY_LOG_LEVEL",
    "OPENAI_APIKEY": "OPENAI_API_KEY",
    "OPENAI_API_KEY_ONE": "OPENAI_API_KEY_1",
    "OPENAI_RESOURCE_WEIGHT": "OPENAI_RESOURCE_WEIGHTS",
}


@pytest.mark.parametrize(("name", "meant"), MISTAKES.items())
def test_a_misspelt_variable_is_named_with_the_nearest(name: str, meant: str) -> None:
    (error,) = unknown_variables({name: "sk-hush"})
    assert (
        str(error) == f"{name}: is not a variable of this proxy. Did you mean {meant}?"
    )


def test_a_name_that_resembles_none() -> None:
    (error,) = unknown_variables({"PROXY_XYZZY\n": "hush"})
    assert str(error).startswith(
        "PROXY_XYZZY\\n: is not a variable of this proxy. The c"
    )


@pytest.mark.parametrize(
    "name",
    [
        *sorted(SETTINGS),
        *(f"{name}{FILE}" for name in sorted(SECRETS)),
        *("OPENAI_API_KEY_7", "OPENAI_API_KEY_7_FILE", "OPENAI_RESOURCE_POOL_ID"),
        *("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_AGENTS_DISABLE_TRACING"),
        *("MORPH_API_KEY", "HTTP_PROXY", "PROVIDER_ACME", "PATH", "proxy_port"),
    ],
)
def test_a_variable_of_ours_or_of_others_is_no_mistake(name: str) -> None:
    assert list(unknown_variables({name: "x"})) == []


def test_an_empty_variable_counts_as_unset() -> None:
    assert list(unknown_variables({"PROXY_XYZZY": ""})) == []


def test_the_links_of_kubernetes_are_no_mistake() -> None:
    links = dict.fromkeys(
        ("PROXY_GW_SERVICE_HOST", "PROXY_GW_SERVICE_PORT", "PROXY_GW_SERVICE_PORT_HTTP",
         "PROXY_GW_PORT", "PROXY_GW_PORT_8000_TCP", "PROXY_GW_PORT_8000_TCP_ADDR"), "x"
    )  # fmt: skip
    assert list(unknown_variables(links)) == []
    del links["PROXY_GW_SERVICE_HOST"]
    assert len(list(unknown_variables(links))) == len(links)


def test_what_clients_read_the_proxy_does_not() -> None:
    assert is_of_clients("OPENAI_BASE_URL")
    assert not is_known("OPENAI_BASE_URL")
    assert not any(is_of_clients(name) for name in SETTINGS)


def test_no_secret_is_forgotten() -> None:
    """A new setting whose name says that it is secret must be hidden in `repr`: then it
    can be given as a file, and is never printed."""
    words = (
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "ENCRYPTION_KEY",
        "DATABASE_URL",
        "REDIS_URL",
    )
    secret = {name for name in SETTINGS if any(word in name for word in words)}
    assert secret <= SECRETS
    hidden = {
        field.alias
        for model in MODELS
        for field in model.model_fields.values()
        if not field.repr or "SecretStr" in str(field.annotation)
    }
    assert hidden | {"OPENAI_API_KEY", "OPENAI_API_KEYS"} == SECRETS


@pytest.mark.parametrize("mark", ["'", '"'])
@pytest.mark.parametrize(
    "name",
    ["OPENAI_API_KEY", "OPENAI_API_KEY_3", "PROXY_ADMIN_TOKEN", "HTTPS_PROXY",
     "PROXY_DATABASE_URL", "PROXY_REDIS_URL_FILE", "PROVIDER_ACME_KEY"],
)  # fmt: skip
def test_a_value_in_quotation_marks(name: str, mark: str) -> None:
    (error,) = quoted_values({name: f"{mark}hush-hush{mark}"})
    assert str(error).startswith(f"{name}: begins and ends with a quotation mark (it ")
    assert "hush" not in str(error)


@pytest.mark.parametrize("value", ["", '"', "it's", "'a\"", "plain"])
def test_a_value_without_a_pair_of_them(value: str) -> None:
    assert list(quoted_values({"PROXY_ADMIN_TOKEN": value})) == []
