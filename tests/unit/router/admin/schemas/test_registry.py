"""Which providers and model aliases are valid."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from services.router.admin.schemas.registry import (
    MOST_KEYS,
    ModelAsk,
    ModelChange,
    ProviderAsk,
    ProviderChange,
    keys_of,
)

HUSH = "sk-hush"


def provider(**given: Any) -> ProviderAsk:
    return ProviderAsk.model_validate({"id": "acme", **given})


def wrong(**given: Any) -> str:
    """Where the error is, as an answer says it; never with the key."""
    with pytest.raises(ValidationError) as error:
        provider(**given)
    first = error.value.errors(include_url=False, include_input=False)[0]
    assert HUSH not in str(first)
    return ".".join(map(str, first["loc"]))


@pytest.mark.parametrize("id_", ["a", "Acme-1", "a.b_c", "0" * 64])
def test_an_id_travels_in_headers_and_urls(id_: str) -> None:
    assert provider(id=id_).id == id_


@pytest.mark.parametrize("id_", ["", "-a", "a b", "a/b", "ü", "0" * 65, "test", "a\n"])
def test_what_cannot_be_an_id(id_: str) -> None:
    assert wrong(id=id_) == "id"


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"name": "a\0"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"provider_type": "bedrock"}, "provider_type"),
        ({"wire_api": "chat"}, "wire_api"),
        ({"auth_type": "basic"}, "auth_type"),
        ({"base_url": "http://user:hush@h/v1"}, "base_url"),
        ({"base_url": "http://h/" + "x" * 2048}, "base_url"),
        ({"weight": 0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": 10**7}, "weight"),
        ({"pool_id": "@acme"}, "pool_id"),
        ({"pool_id": ""}, "pool_id"),
        ({"account_id": "a b"}, "account_id"),
        ({"enabled": None}, "enabled"),
        ({"surprise": 1}, "surprise"),
        ({"api_key": f"{HUSH} x"}, "api_key"),
        ({"api_key": " , "}, "api_key"),
        ({"api_key": ",".join(f"sk-{n}" for n in range(MOST_KEYS + 1))}, "api_key"),
        ({"api_key": HUSH, "credential_ref": "env:A"}, ""),
        ({"credential_ref": "sealed:x"}, "credential_ref"),
        ({"credential_ref": "env:PROXY_ADMIN_TOKEN"}, "credential_ref"),
        ({"credential_ref": "env:DATABASE_URL"}, "credential_ref"),
        ({"credential_ref": "env:A#0"}, "credential_ref"),
    ],
)
def test_what_a_provider_cannot_be(given: dict[str, Any], where: str) -> None:
    assert wrong(**given) == where


def test_a_url_is_kept_without_its_trailing_slash() -> None:
    assert provider(base_url="http://h/v1/").base_url == "http://h/v1"


@pytest.mark.parametrize(
    ("text", "keys"),
    [("a", ("a",)), (" a, b ,a,", ("a", "b")), ("", ()), (" , ", ())],
)
def test_keys_of_a_comma_list_are_each_there_once(
    text: str, keys: tuple[str, ...]
) -> None:
    assert keys_of(SecretStr(text)) == keys


def test_as_many_keys_as_may_be() -> None:
    listed = ",".join(f"sk-{n}" for n in range(MOST_KEYS))
    given = provider(api_key=listed + "," + listed)
    assert given.api_key is not None
    assert len(keys_of(given.api_key)) == MOST_KEYS
    assert "sk-1" not in repr(given)


def test_what_is_not_named_is_not_changed() -> None:
    change = ProviderChange.model_validate({"enabled": False})
    assert change.model_dump(exclude_unset=True) == {"enabled": False}
    model = ModelChange.model_validate({"upstream_id": "gpt"})
    assert model.model_dump(exclude_unset=True) == {"upstream_id": "gpt"}


@pytest.mark.parametrize("alias", ["gpt-5", "team/fast", "a:b@c", "x" * 128])
def test_an_alias_may_look_like_a_models_name(alias: str) -> None:
    made = ModelAsk(alias=alias, provider_id="acme", upstream_id="a b")
    assert made.alias == alias


@pytest.mark.parametrize("alias", ["", "/a", "test", "a b", "x" * 129])
def test_what_cannot_be_an_alias(alias: str) -> None:
    with pytest.raises(ValidationError):
        ModelAsk(alias=alias, provider_id="acme", upstream_id="m")
