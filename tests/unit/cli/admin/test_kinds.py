"""The kinds, and the hint at a name that looks like a given one."""

import pytest

from libs.cli.admin.kinds import ORDER, is_managed, is_revoked, nearest


def test_models_come_after_providers_and_keys_after_teams() -> None:
    assert [kind.name for kind in ORDER] == [
        "prices",
        "providers",
        "models",
        "teams",
        "keys",
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("polciy", "; did you mean policy?"),
        ("zzz", ""),
        ("pool", "; did you mean pools?"),
    ],
)
def test_the_nearest_name(name: str, hint: str) -> None:
    assert nearest(name, ["policy", "pools", "pool_id"]) == hint


def test_what_is_managed() -> None:
    assert is_managed({"id": "acme"})
    assert is_managed({"model": "m", "own": True})
    assert not is_managed({"model": "m", "own": False})  # of PROXY_PRICES_FILE
    assert not is_managed({"revoked_at": "2026-01-01T00:00:00Z"})


def test_only_keys_are_revoked() -> None:
    assert is_revoked({"revoked_at": "2026-01-01T00:00:00Z"})
    assert not is_revoked({"revoked_at": None})
    assert not is_revoked({"id": "acme"})
