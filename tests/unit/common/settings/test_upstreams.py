"""URLs of upstreams, and the keys that open sealed credentials."""

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import SettingError
from libs.common.settings.messages import SettingErrorCarrier
from libs.common.settings.upstreams import (
    EgressSettings,
    ProviderSettings,
    SealingSettings,
    checked_url,
)


@pytest.mark.parametrize(
    ("given_", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        (" http://10.0.0.1:9000/v1// ", "http://10.0.0.1:9000/v1"),
        ("http://[::1]/v1", "http://[::1]/v1"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_url_that_can_be_one(given_: str, url: str) -> None:
    assert checked_url("base_url", given_) == url


@pytest.mark.parametrize(
    "given_",
    [
        "",
        "api.openai.com/v1",
        "ftp://h/v1",
        "http://",
        "http://h:0/v1",
        "http://h:99999/v1",
        "http://h:port/v1",
        "http://[::1/v1",
        "http://user@h/v1",
        "http://user:hush@h/v1",
        "http://h/v1?key=hush",
        "http://h/v1#part",
        "http://h/v 1",
        "http://bücher.example/v1",
    ],
)
def test_a_url_that_cannot_be_one_is_refused_without_its_secrets(given_: str) -> None:
    with pytest.raises(SettingErrorCarrier) as error:
        checked_url("base_url", given_)
    assert str(error.value).startswith("base_url: ")
    assert "hush" not in str(error.value)


@given(st.text(max_size=40))
def test_whatever_is_no_url_is_refused_in_one_way(text: str) -> None:
    try:
        found = checked_url("base_url", text)
    except SettingErrorCarrier:
        return
    assert found.startswith(("http://", "https://"))
    assert found == checked_url("base_url", found)


def test_the_first_of_several_keys_stays_first() -> None:
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    settings = SealingSettings.read({"PROXY_SECRET_ENCRYPTION_KEY": ", ".join(keys)})
    assert settings.fernet_keys == tuple(keys)
    assert SealingSettings.read({}).fernet_keys == ()


def test_a_bad_key_is_named_by_its_position_and_not_shown() -> None:
    good = Fernet.generate_key().decode()
    with pytest.raises(SettingError, match="key 2") as error:
        SealingSettings.read({"PROXY_SECRET_ENCRYPTION_KEY": f"{good},hush"})
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("globs", ["OPENAI_*", "*", "a b"])
def test_globs_that_give_too_much_are_refused(globs: str) -> None:
    with pytest.raises(SettingError, match="PROXY_CREDENTIAL_VARIABLES"):
        ProviderSettings.read({"PROXY_CREDENTIAL_VARIABLES": globs})


def test_a_ca_file_must_hold_certificates() -> None:
    with pytest.raises(SettingError, match="PROXY_UPSTREAM_CA_FILE"):
        EgressSettings.read({"PROXY_UPSTREAM_CA_FILE": "/nowhere/ca.pem"})
