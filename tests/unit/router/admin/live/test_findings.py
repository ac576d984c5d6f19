"""What is wrong, in words. Each row of "When something is down" in docs/operate.md."""

from typing import Any

import pytest

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import HealthState, ModelLimits
from libs.common.proxy_keys import Principal
from services.router.admin.live import findings
from services.router.conditions import PARTS
from tests.unit.router.test_metrics import LEDGER, resource

KEY = Principal("key_1", requests_per_minute=60, tokens_per_minute=1000, team_id="t")


def limited(**over: Any) -> Any:
    known = {
        "model": "m", "limit_requests": 100, "remaining_requests": 3,
        "requests_reset_at": "2026-01-01T00:00:00.000Z", "limit_tokens": 1000,
        "remaining_tokens": 900, "tokens_reset_at": "2026-01-01T00:01:00.000Z",
    }  # fmt: skip
    limits = ModelLimits(**{**known, **over})
    return resource("a").model_copy(update={"limits": (limits,)})


@pytest.mark.parametrize("part", [*PARTS, "gateways gw-1"])
def test_each_part_of_the_router_has_words(part: str) -> None:
    if part in ("gateways", "ledger"):
        return  # the first has a name; the second is told with its problems
    (found,) = findings.of_parts({part: "events wait since 40 s to be stored"})
    assert found.text.endswith(".")
    assert found.to_do.endswith(".")
    kinds = {"ingest": "backlog", "gateways gw-1": "gateway_silent"}
    assert found.kind == kinds.get(part, "degraded")


@pytest.mark.parametrize(
    "part", ["catalogue", "journal", "ledger", "recovery", "router", "keys"]
)
def test_each_part_of_a_gateway_has_words_of_its_own(part: str) -> None:
    (found,) = findings.of_gateways({"gw-1": (part,)})
    assert (found.kind, found.subject) == ("degraded", f"{part} of gateway gw-1")
    (unknown,) = findings.of_gateways({"gw-1": ("something new",)})
    assert found.text != unknown.text


def test_what_the_router_sees_itself_is_told_once() -> None:
    assert not list(findings.of_gateways({"gw-1": ("redis", "key limits")}))


def test_the_ledger() -> None:
    sound = LEDGER.model_copy(update={"problems": (), "dead_lettered": 0})
    assert not list(findings.of_ledger(sound))
    bad = LEDGER.model_copy(update={"problems": ("gw lost 1",), "dead_lettered": 2})
    opened, dead = findings.of_ledger(bad)
    assert (opened.kind, opened.text) == ("ledger_open", "gw lost 1")
    assert (dead.kind, dead.text.split()[0]) == ("dead_letters", "2")


@pytest.mark.parametrize(
    ("health", "kind"),
    [
        (HealthState.UNHEALTHY, "resource_unhealthy"),
        (HealthState.DEGRADED, "resource_cooling"),
    ],
)
def test_a_sick_resource(health: HealthState, kind: str) -> None:
    update = {"health": health, "id": "a/b", "last_error": "401",
              "cooldown_until": "2026-01-01T00:00:00.000Z"}  # fmt: skip
    sick = resource("a").model_copy(update=update)
    (found,) = findings.of_resources([sick, resource("b")])
    assert (found.kind, found.link) == (kind, "#/resources/a%2Fb")
    assert "Last error: 401." in found.text
    cooling = kind == "resource_cooling"
    assert found.until == (sick.cooldown_until if cooling else None)


def test_an_account_that_is_near_its_limit_is_told_once() -> None:
    (found,) = findings.of_accounts([limited(), limited(), resource("b")])
    assert (found.kind, found.subject) == ("account_limit", "of-a, m")
    assert "3 of 100 requests and 900 of 1000 tokens" in found.text
    assert found.until == "2026-01-01T00:01:00.000Z"


@pytest.mark.parametrize(
    "over",
    [
        {"remaining_requests": 5},
        {"remaining_requests": None},
        {"limit_requests": None},
        {"limit_requests": 0},
    ],
)
def test_an_account_with_enough_left(over: dict[str, Any]) -> None:
    assert not list(findings.of_accounts([limited(**over)]))


@pytest.mark.parametrize(
    ("requests", "tokens", "full"),
    [
        (59, 999, None),
        (60, 0, "60 requests"),
        (0, 1200, "1000 tokens"),
        (60, 1000, "60 requests and 1000 tokens"),
    ],
)
def test_a_tenant_at_its_limit(requests: int, tokens: int, full: str | None) -> None:
    found = list(findings.of_tenants([(KEY, requests, tokens)]))
    assert [each.link for each in found] == (["#/keys/key_1"] if full else [])
    assert all(f"of team t has used its {full} of" in each.text for each in found)


def test_a_key_without_limits_reaches_none() -> None:
    assert not list(findings.of_tenants([(Principal("k"), 10**9, 10**9)]))


def test_the_worst_comes_first() -> None:
    words = findings.Words("text", "to do")
    kinds = ["tenant_limit", "resource_cooling", "degraded", "resource_unhealthy"]
    items = [findings.item(kind, "x", words) for kind in kinds]  # type: ignore[arg-type]
    ordered = [each.kind for each in findings.sorted_items(items)]
    assert ordered == [
        "degraded", "resource_unhealthy", "resource_cooling", "tenant_limit",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("subject", "text", "link"),
    [
        ("key:k/1", "budget of this proxy key is spent", "#/keys/k%2F1"),
        ("team:red", "budget of this team is spent", "#/keys"),
    ],
)
def test_a_budget_that_is_spent(subject: str, text: str, link: str) -> None:
    (found,) = findings.of_budgets([Budget(subject, tokens=1)])
    assert (found.kind, found.subject, found.link) == ("tenant_limit", subject, link)
    assert text in found.text
