"""Which variables a deployment needs, and which ones the instance gets."""

from dataclasses import replace
from pathlib import Path

import pytest

from libs.cli.checks.finding import Refused
from libs.common.settings import http_proxies, resources
from libs.common.settings.base import Settings
from libs.common.settings.services import SERVICES, UpSettings
from scripts.morph.configuration import Options, passed_on, read

MODELS: tuple[type[Settings], ...] = (*SERVICES.values(), UpSettings)
EVERY_VARIABLE = {
    *(variable for model in MODELS for variable in model.variables()),
    *resources.VARIABLES,
    *(f"{resources.KEY}_{number}" for number in (1, 4, 17)),
    *(name for names in http_proxies.VARIABLES.values() for name in names),
    *("NO_PROXY", "no_proxy", "PROVIDER_ACME"),
}
PRICES = (
    b'[[price]]\nmodel = "m"\nvalid_from = 2025-08-07\n'
    b"input = 1\ncached_input = 1\noutput = 2\n"
)
OPTIONS = Options("responses-proxy", None, 2, 4096, 16384)
COMPLETE = {
    "MORPH_API_KEY": "k-1",
    "MORPH_BUILDER_SNAPSHOT_ID": "snapshot_1",
    "PROXY_DATABASE_URL": "postgresql://proxy@db.example.com/proxy",
    "OPENAI_API_KEY_1": "sk-1",
}


def problems(**changes: str) -> list[str]:
    with pytest.raises(Refused) as caught:
        read({**COMPLETE, **changes}, OPTIONS)
    return [problem.variable for problem in caught.value.problems]


def test_every_variable_of_the_service_is_passed_on() -> None:
    given = dict.fromkeys(EVERY_VARIABLE, "value") | {
        "PROXY_CREDENTIAL_VARIABLES": "PROVIDER_*"
    }
    assert set(passed_on(given)) == EVERY_VARIABLE


def test_nothing_of_this_machine_is_passed_on() -> None:
    others = ("PATH", "HOME", "MORPH_API_KEY", "AWS_SECRET_ACCESS_KEY", "ACME_KEY")
    assert passed_on(dict.fromkeys(others, "value")) == {}


def test_credential_variables_are_those_of_the_globs() -> None:
    given = {"PROXY_CREDENTIAL_VARIABLES": "ACME_*", "ACME_KEY": "k", "PROVIDER_X": "x"}
    assert set(passed_on(given)) == {"PROXY_CREDENTIAL_VARIABLES", "ACME_KEY"}


def test_an_empty_value_counts_as_unset() -> None:
    assert passed_on({"PROXY_PORT": "", "OPENAI_API_KEY": "  "}) == {}
    assert problems(PROXY_DATABASE_URL="") == ["PROXY_DATABASE_URL"]
    assert problems(OPENAI_API_KEY_1="") == ["OPENAI_API_KEY_1"]
    assert problems(MORPH_API_KEY="") == ["MORPH_API_KEY"]


@pytest.mark.parametrize("variable", ["SERVICE_DATABASE_URL", "DATABASE_URL"])
def test_any_database_variable_will_do(variable: str) -> None:
    given = {**COMPLETE, variable: COMPLETE["PROXY_DATABASE_URL"]}
    del given["PROXY_DATABASE_URL"]
    assert variable in read(given, OPTIONS).environment


@pytest.mark.parametrize(
    "given",
    [
        {"OPENAI_API_KEY": "sk-1"},
        {"OPENAI_API_KEYS": "sk-1,sk-2"},
        {"OPENAI_API_KEY_9": "sk-1"},
        {"PROXY_SIMULATE": "true"},
        {"PROXY_SIMULATE": "false"},
    ],
)
def test_any_upstream_key_will_do_or_a_word_that_there_is_none(
    given: dict[str, str],
) -> None:
    read({**COMPLETE, "OPENAI_API_KEY_1": "", **given}, OPTIONS)


def test_ids_are_checked_before_they_become_part_of_a_path() -> None:
    variable = "MORPH_BUILDER_SNAPSHOT_ID"
    assert problems(**{variable: "../user/secret?x"}) == [variable]


def test_open_admin_is_refused_without_a_token() -> None:
    assert problems(PROXY_ALLOW_OPEN_ADMIN="True") == ["PROXY_ALLOW_OPEN_ADMIN"]
    read(
        {**COMPLETE, "PROXY_ALLOW_OPEN_ADMIN": "1", "PROXY_ADMIN_TOKEN": "long-enough"},
        OPTIONS,
    )


def test_a_named_file_is_read_and_its_path_is_not_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_bytes(PRICES)
    found = read({**COMPLETE, "PROXY_PRICES_FILE": str(file)}, OPTIONS)
    assert found.files == {"PROXY_PRICES_FILE": PRICES}
    assert "PROXY_PRICES_FILE" not in found.environment


def test_the_port_is_that_of_the_gateway() -> None:
    assert read(COMPLETE, OPTIONS).port == 8000
    assert read({**COMPLETE, "PROXY_PORT": "9000"}, OPTIONS).port == 9000
    assert problems(PROXY_PORT="443") == ["PROXY_PORT"]
    assert problems(PROXY_PORT="eighty") == ["PROXY_PORT"]


def test_keys_are_required_unless_that_is_said() -> None:
    assert read(COMPLETE, OPTIONS).environment["PROXY_REQUIRE_KEYS"] == "true"
    given = {**COMPLETE, "PROXY_REQUIRE_KEYS": "false"}
    found = read(given, OPTIONS)
    assert found.environment["PROXY_REQUIRE_KEYS"] == "false"
    assert any("PROXY_REQUIRE_KEYS" in warning for warning in found.warnings)


def test_no_representation_shows_a_secret() -> None:
    given = {**COMPLETE, "MORPH_API_KEY": "morph-secret", "OPENAI_API_KEY_1": "sk-sec"}
    text = repr(read(given, replace(OPTIONS, stage="prod")))
    assert "morph-secret" not in text
    assert "sk-sec" not in text
