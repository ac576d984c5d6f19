"""Resources from the environment: which keys count, in which order, and errors that do
not contain a key."""

import pytest

from libs.common.errors import SettingError
from libs.common.settings.resources import (
    resolve_credential,
    resources_from_environment,
)

URL = "https://upstream.test/v1"
TWO = {"OPENAI_API_KEYS": "sk-a,sk-b"}


@pytest.mark.parametrize(
    ("environ", "keys"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"OPENAI_API_KEY": ""}, [], id="empty counts as unset"),
        pytest.param({"OPENAI_API_KEY": " \n"}, [], id="so does blank"),
        pytest.param({"OPENAI_API_KEY": "sk-a\n"}, ["sk-a"], id="file's last newline"),
        pytest.param(
            {"OPENAI_API_KEYS": " sk-a , ,sk-b,"}, ["sk-a", "sk-b"], id="comma list"
        ),
        pytest.param(
            {
                "OPENAI_API_KEY_10": "sk-10",
                "OPENAI_API_KEY_2": "sk-2",
                "OPENAI_API_KEYS": "sk-l",
                "OPENAI_API_KEY": "sk-0",
            },
            ["sk-0", "sk-l", "sk-2", "sk-10"],
            id="single, list, then numbers with gaps",
        ),
        pytest.param(
            {
                "OPENAI_API_KEY": "sk-a",
                "OPENAI_API_KEYS": "sk-b,sk-a,sk-b",
                "OPENAI_API_KEY_1": "sk-b",
            },
            ["sk-a", "sk-b"],
            id="a key given twice counts once",
        ),
        pytest.param(
            {"OPENAI_API_KEY_X": "sk-x", "OPENAI_API_KEY_": "sk-y"},
            [],
            id="not a number",
        ),
    ],
)
def test_which_keys_count(environ: dict[str, str], keys: list[str]) -> None:
    resources = resources_from_environment(environ, URL)

    assert [resolve_credential(r.credential, environ) for r in resources] == keys
    assert [r.id for r in resources] == [f"openai-{n}" for n in range(1, len(keys) + 1)]


def test_defaults() -> None:
    first, second = resources_from_environment(TWO, URL)

    assert first.pool_id == second.pool_id == "openai-default"
    assert (first.account_id, second.account_id) == ("openai-1", "openai-2")
    assert first.weight == second.weight == 1.0
    assert first.base_url == URL
    assert second.credential == "env:OPENAI_API_KEYS#2"


def test_no_resource_holds_its_key() -> None:
    environ = {"OPENAI_API_KEY": "sk-secret", "OPENAI_API_KEYS": "sk-secret-2"}

    assert "sk-secret" not in repr(resources_from_environment(environ, URL))


def test_lists_go_by_position() -> None:
    environ = {
        **TWO,
        "OPENAI_RESOURCE_WEIGHTS": "2, 0.5",
        "OPENAI_RESOURCE_POOL_IDS": "fast,slow",
        "OPENAI_RESOURCE_POOL_ID": "unused",
        "OPENAI_RESOURCE_ACCOUNT_IDS": "org-1,",
    }

    first, second = resources_from_environment(environ, URL)

    assert (first.weight, second.weight) == (2.0, 0.5)
    assert (first.pool_id, second.pool_id) == ("fast", "slow")
    assert (first.account_id, second.account_id) == ("org-1", "openai-2")


def test_one_pool_for_all() -> None:
    environ = {**TWO, "OPENAI_RESOURCE_POOL_ID": "team"}

    assert {r.pool_id for r in resources_from_environment(environ, URL)} == {"team"}


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OPENAI_RESOURCE_WEIGHTS", "1", "has 1 entry for 2 keys"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,2,3", "has 3 entries for 2 keys"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,2,", "has 3 entries for 2 keys"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,1e-9", "entry 2 is not a number from 0.001"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,0", "entry 2 is not a number from 0.001"),
        ("OPENAI_RESOURCE_WEIGHTS", "-1,1", "entry 1 is not a number from 0.001"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,heavy", "entry 2 is not a number from 0.001"),
        ("OPENAI_RESOURCE_WEIGHTS", "nan,1", "entry 1 is not a number from 0.001"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,inf", "entry 2 is not a number from 0.001"),
        ("OPENAI_RESOURCE_WEIGHTS", "1,", "entry 2 is not a number from 0.001"),
        ("OPENAI_RESOURCE_POOL_IDS", "a", "has 1 entry for 2 keys"),
        ("OPENAI_RESOURCE_POOL_IDS", "a,", "entry 2 is empty"),
        ("OPENAI_RESOURCE_POOL_IDS", "a,b c", "entry 2 is not a valid name"),
        ("OPENAI_RESOURCE_POOL_IDS", "a," + "b" * 65, "entry 2 is not a valid name"),
        ("OPENAI_RESOURCE_POOL_ID", "te{}am", "its value is not a valid name"),
        ("OPENAI_RESOURCE_ACCOUNT_IDS", "a,ü", "entry 2 is not a valid name"),
        ("OPENAI_RESOURCE_ACCOUNT_IDS", "a", "has 1 entry for 2 keys"),
    ],
)
def test_nonsense_is_refused(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingError) as refused:
        resources_from_environment({**TWO, variable: value}, URL)

    message = str(refused.value)
    assert message.startswith(f"{variable}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OPENAI_API_KEY", "sk-hush hush", "a space"),
        ("OPENAI_API_KEY", "sk-hush\nhush", "a line break"),
        ("OPENAI_API_KEY_3", "sk-hush\thush", "a space"),
        ("OPENAI_API_KEY_3", "sk-hush\x00", "a control character"),
        ("OPENAI_API_KEYS", "sk-a,sk-hüsh-hush", "a non-ASCII character"),
        ("OPENAI_API_KEY", '"sk-hush"', "a quotation mark"),
        ("OPENAI_API_KEY", "sk-hush,sk-hush2", "a comma"),
    ],
)
def test_what_cannot_be_a_key_is_described_not_shown(
    variable: str, value: str, says: str
) -> None:
    with pytest.raises(SettingError) as refused:
        resources_from_environment({variable: value}, URL)

    message = str(refused.value)
    assert message.startswith(f"{variable}: is not a key: it contains {says}")
    assert "hush" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("credential", "says"),
    [
        ("env:OPENAI_API_KEY_7", "OPENAI_API_KEY_7: contains no key"),
        ("env:OPENAI_API_KEYS#3", "OPENAI_API_KEYS: contains no key"),
        ("sealed:gAAAAAhush", "neither env:NAME"),
        ("plain:hush", "is neither env:NAME nor sealed:TOKEN"),
    ],
)
def test_a_credential_that_leads_to_no_key(credential: str, says: str) -> None:
    with pytest.raises(SettingError) as refused:
        resolve_credential(credential, TWO)

    assert says in str(refused.value)
    assert "hush" not in str(refused.value)
