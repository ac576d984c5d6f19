"""The commands of the kinds: how one is found and shown. What they do:
tests/integration/cli/test_apply.py."""

from typing import Any

import pytest

from libs.cli.admin.kinds import KEYS, MODELS, ORDER, PRICES, TEAMS, Kind
from libs.cli.admin.resources import app, listed, one_of
from libs.cli.run import run_app
from libs.common.errors import ProxyError

NOW = "2026-01-01T00:00:00Z"


def key(id_: str, name: str, revoked_at: str | None = None) -> dict[str, Any]:
    return {"id": id_, "name": name, "revoked_at": revoked_at, "enabled": True}


ROWS = [key("k1", "a"), key("k2", "b"), key("k3", "b"), key("k4", "c", NOW)]


def test_by_id_or_name() -> None:
    assert one_of(KEYS, ROWS, "a")["id"] == "k1"
    assert one_of(KEYS, ROWS, "k3")["id"] == "k3"
    assert one_of(KEYS, ROWS, "k4")["name"] == "c"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("b", "2 keys have the name 'b'; give an id: k2, k3"),
        ("c", "there is no key 'c'"),
    ],
)
def test_not_found(name: str, cause: str) -> None:
    with pytest.raises(ProxyError, match=cause):
        one_of(KEYS, ROWS, name)


def test_the_nearest_is_named() -> None:
    with pytest.raises(ProxyError, match="there is no team 'serch'; did you mean sea"):
        one_of(TEAMS, [{"id": "search"}], "serch")


def test_tables() -> None:
    assert listed(KEYS, ROWS[:1])[0].split()[-1] == "last_used_at"
    heads, *rows = listed(KEYS, ROWS)
    assert heads.split()[-1] == "revoked_at"
    assert rows[3].split() == ["k4", "c", "-", "-", "yes", "-", "-", NOW]
    policy = {"models": ["a*"], "ip_allow": []}
    team = {"id": "red", "name": "", "keys": 2, "policy": policy}
    assert listed(TEAMS, [team])[1] == 'red  -     2     {"models": ["a*"]}'
    price = {"input": 2.5, "output": 10.0, "reasoning": None, "service_tier": ""}
    costs = {"model": "m", "own": False, "prices": [price, price]}
    assert listed(PRICES, [costs])[1] == (
        "m      no   input 2.5 output 10, input 2.5 output 10"
    )
    target = {"provider_id": "p", "upstream_id": "m", "weight": 2.5}
    model = {"alias": "x", "targets": [target, target], "enabled": False}
    assert listed(MODELS, [model])[1].split("  ")[-2:] == ["p: m, p: m", "no"]


@pytest.mark.parametrize("kind", ORDER, ids=lambda kind: kind.name)
def test_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: Kind
) -> None:
    monkeypatch.setattr("sys.argv", ["x", kind.name, "--help"])
    with pytest.raises(SystemExit):
        run_app(app, "responses-proxy")
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: responses-proxy {kind.name} [OPTIONS] COMMAND")
    assert all(f"  {name} " in out for name in ("list", "show", "create", "change"))
    assert f"  {kind.removal} " in out
