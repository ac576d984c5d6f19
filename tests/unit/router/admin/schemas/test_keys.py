"""Which proxy keys can be minted, and which responses contain a secret."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from services.router.admin.schemas.keys import (
    KeyChange,
    MintAsk,
    MintedKey,
    ProxyKeyRow,
)


def test_every_field_of_a_new_key_has_a_default() -> None:
    empty = MintAsk()
    assert (empty.name, empty.pool_id, empty.pools) == ("", None, ())
    assert (empty.expires_at, empty.requests_per_minute) == (None, None)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "x" * 201},
        {"name": "a\x7f"},
        {"pool_id": ""},
        {"pools": ["a"] * 101},
        {"pools": ["a\n"]},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 10**12 + 1},
        {"expires_at": "2027-01-01T00:00:00"},
        {"expires_at": "1999-12-31T23:59:59Z"},
        {"expires_at": "9000-01-01T00:00:00Z"},
        {"enabled": True},
    ],
)
def test_an_invalid_key(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MintAsk.model_validate_json(json.dumps(given))


def test_only_a_change_disables_a_key() -> None:
    change = KeyChange.model_validate({"enabled": False})
    assert change.model_dump(exclude_unset=True) == {"enabled": False}


def test_only_the_response_that_minted_a_key_has_its_secret() -> None:
    fields = {n for n in MintedKey.model_fields if n not in ProxyKeyRow.model_fields}
    assert fields == {"secret"}
    assert "secret_hash" not in MintedKey.model_fields
