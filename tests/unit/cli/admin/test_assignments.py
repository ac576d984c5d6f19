"""Fields from the command line."""

from typing import Any

import pytest

from libs.cli.admin.assignments import InvalidField, fields_of
from libs.cli.admin.kinds import KEYS, MODELS, ORDER, PROVIDERS
from tests.support.values.openapi import schemas

KINDS = {kind.name: kind for kind in ORDER}


def parsed(kind: str, *given: str, new: bool = False) -> dict[str, Any]:
    return fields_of(KINDS[kind], schemas()[kind], given, new=new)


def test_values_by_type() -> None:
    assert parsed(
        "keys", "name=12", "pools=a, b", "requests_per_minute=5", "team_id=null",
        "policy={models: [a*]}", "expires_at=2031-01-31T00:00:00Z", "enabled=false",
    ) == {
        "name": "12", "pools": ["a", "b"], "requests_per_minute": 5, "team_id": None,
        "policy": {"models": ["a*"]}, "expires_at": "2031-01-31T00:00:00Z",
        "enabled": False,
    }  # fmt: skip
    assert parsed("keys", "pools=", "name=null") == {"pools": [], "name": "null"}
    assert parsed("keys", "pools=null", "policy=null") == {"pools": [], "policy": None}
    assert parsed("keys", 'pools=["a,b"]') == {"pools": ["a,b"]}
    assert parsed(
        "keys", "budget_usd=0.5", "budget_tokens=null", "budget_window=week",
        "budget_reserve=true", "budget_time_zone=Europe/Berlin",
    ) == {
        "budget_usd": 0.5, "budget_tokens": None, "budget_window": "week",
        "budget_reserve": True, "budget_time_zone": "Europe/Berlin",
    }  # fmt: skip
    assert parsed("teams", "name=a=b") == {"name": "a=b"}


def test_a_change_needs_no_required_field() -> None:
    assert parsed("models", "enabled=false") == {"enabled": False}
    assert parsed("providers", "api_key_env=A") == {"api_key_env": "A"}


@pytest.mark.parametrize(
    ("kind", "given", "cause"),
    [
        ("keys", ["name"], "'name' is not FIELD=VALUE"),
        ("keys", ["name=a", "name=b"], "name is given twice"),
        ("keys", ["naem=a"], "unknown field 'naem'; did you mean name"),
        ("keys", ["requests_per_minute=x"], "'x' is not a whole number or null"),
        ("keys", ["requests_per_minute="], "requests_per_minute has no value"),
        ("keys", ["policy={modles: [a]}"], "policy.modles: unknown field; did you m"),
        ("keys", ["policy={"], "policy: expected"),
        ("models", ["alias=a"], "give either provider_id and upstream_id, or targets"),
        ("teams", ["name=a"], "id is missing"),
        (
            "providers",
            ["id=a", "api_key=sk-hush"],
            "api_key: keys are not written here",
        ),
        (
            "providers",
            ["id=a", "credential_ref=hush"],
            "credential_ref: is not env:NAME",
        ),
    ],
)
def test_mistakes(kind: str, given: list[str], cause: str) -> None:
    with pytest.raises(InvalidField, match=cause) as refused:
        parsed(kind, *given, new=True)
    assert "hush" not in str(refused.value)


def test_the_label_cannot_be_changed_where_the_api_keeps_it() -> None:
    assert fields_of(KEYS, schemas()["keys"], ["name=b"], new=False) == {"name": "b"}
    for kind in (MODELS, PROVIDERS):
        with pytest.raises(InvalidField, match="unknown field"):
            fields_of(kind, schemas()[kind.name], [f"{kind.label}=b"], new=False)
