"""Changes made one by one."""

from typing import Any

import pytest

from libs.cli.admin.applying import Step, apply, as_json, lines
from libs.cli.admin.declared import Declared
from libs.cli.admin.difference import Action, Change
from libs.cli.admin.kinds import KEYS, PROVIDERS, TEAMS, Fields, Kind
from libs.common.errors import ProxyError

NEW_KEY = Change(
    Action.CREATE, KEYS, "a", fields={"name": "a"}, later={"enabled": False}
)
ACME = Declared("acme", {"id": "acme", "api_key_env": "A"}, ())
OF_PROVIDER = Change(
    Action.CHANGE, PROVIDERS, "acme", "acme", fields={"weight": 2.0},
    before={"weight": 1.0}, key_of=ACME,
)  # fmt: skip
OLD_TEAM = Change(Action.DELETE, TEAMS, "old", "old")


class Api:
    """Records calls; fails at `fails`."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self._fails = fails

    def create(self, kind: Kind, fields: Fields) -> dict[str, Any]:
        return self._made("create", kind.name, fields) | {"secret": "rpx_1"}

    def change(self, kind: Kind, id_: str, fields: Fields) -> dict[str, Any]:
        return self._made("change", id_, fields)

    def remove(self, kind: Kind, id_: str) -> dict[str, Any]:
        return self._made("remove", id_, None)

    def _made(self, name: str, what: str, fields: Any) -> dict[str, Any]:
        if self._fails == name:
            raise ProxyError("no")
        self.calls.append((name, what, fields))
        return {"id": "key_1"}


STEPS = [Step(NEW_KEY), Step(OF_PROVIDER, "sk-hush"), Step(OLD_TEAM)]


def test_in_order_and_told() -> None:
    api, told = Api(), list[tuple[str, str | None]]()
    apply(api, STEPS, lambda change, secret: told.append((change.label, secret)))
    assert api.calls == [
        ("create", "keys", {"name": "a"}),
        ("change", "key_1", {"enabled": False}),
        ("change", "acme", {"weight": 2.0, "api_key": "sk-hush"}),
        ("remove", "old", None),
    ]
    assert told == [("a", "rpx_1"), ("acme", None), ("old", None)]
    assert "sk-hush" not in repr(STEPS)


def test_a_failure_says_how_far_it_came() -> None:
    told: list[str] = []
    with pytest.raises(
        ProxyError,
        match=r"team old: no \(2 of 3 changes are made; the same command continues\)",
    ):
        apply(Api("remove"), STEPS, lambda change, _: told.append(change.label))
    assert told == ["a", "acme"]


def test_a_secret_is_told_though_a_later_call_fails() -> None:
    told: list[str | None] = []
    with pytest.raises(ProxyError, match="key a: no"):
        apply(Api("change"), STEPS, lambda _, secret: told.append(secret))
    assert told == ["rpx_1"]


def test_for_people() -> None:
    assert list(lines(NEW_KEY, "rpx_1")) == [
        "create  key a",
        "        enabled: false",
        "        secret: rpx_1  (shown only now)",
    ]
    assert list(lines(OF_PROVIDER)) == [
        "change  provider acme",
        "        weight: 1.0 -> 2.0",
        "        api_key: sent",
    ]
    assert list(lines(OLD_TEAM)) == ["delete  team old"]
    unnamed = Change(Action.REVOKE, KEYS, "", "key_2")
    assert list(lines(unnamed)) == ["revoke  key key_2"]


def test_for_programs() -> None:
    told = as_json(NEW_KEY, "rpx_1")
    assert told["secret"] == "rpx_1"
    assert told["fields"] == {"enabled": {"before": None, "after": False}}
    assert as_json(OF_PROVIDER) == {
        "action": "change", "kind": "providers", "name": "acme", "id": "acme",
        "fields": {"weight": {"before": 1.0, "after": 2.0}}, "sends_api_key": True,
    }  # fmt: skip
