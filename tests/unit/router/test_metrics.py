"""What a router measures of routing and the ledger."""

from typing import Any

from prometheus_client import generate_latest

from libs.common.contracts.catalogue import HealthState, ModelLimits, ResourceState
from services.router import metrics
from services.router.admin.audit import Account
from services.router.admin.schemas.state import AdminState, Ledger, WaitingRequests
from services.router.metrics import measure
from tests.support.clients.scrapes import Scraped

LEDGER = Ledger(
    accepted=10, stored=6, pending=2, in_flight=1, dead_lettered=1, balanced=True,
    problems=(), unverified=(),
)  # fmt: skip


def resource(id_: str, **given: Any) -> ResourceState:
    values: dict[str, Any] = {
        "id": id_, "name": id_, "pool_id": "pool", "account_id": f"of-{id_}",
        "weight": 1, "health": HealthState.HEALTHY, "cooldown_until": None,
        "in_flight": 0, "requests": 0, "errors": 0, "last_latency_ms": None,
        "last_error": None,
    }  # fmt: skip
    return ResourceState(**{**values, **given})


def account(state: str) -> Account:
    return Account("gw", state, 0, 0, 0, 0, 0, 0, None)


def measured(
    *resources: ResourceState,
    accounts: tuple[Account, ...] = (),
    oldest_s: float | None = 0.0,
    **given: Any,
) -> Scraped:
    values: dict[str, Any] = {
        "decisions": (), "affinity_count": 3, "queue_depth": 4, "ledger": LEDGER,
        "waiting": None,        "degraded": (), "admin": "token", "timestamp": "now",
    }  # fmt: skip
    state = AdminState(resources=resources, **{**values, **given})
    measure(state, accounts, oldest_s)
    return Scraped(generate_latest().decode())


def test_requests_that_wait_are_measured() -> None:
    of_pool = WaitingRequests(pool_id="p", account_id=None, requests=7, shares=2)
    of_account = WaitingRequests(pool_id=None, account_id="a", requests=1, shares=1)
    found = measured(waiting=(of_pool, of_account))
    assert found.value("proxy_waiting", pool="p", account="") == 7
    assert found.value("proxy_waiting", pool="", account="a") == 1


def test_resources_are_measured() -> None:
    found = measured(
        *(resource(state, health=state, in_flight=n) for n, state in
          enumerate(HealthState)),
        resource("x", paused_models=("a", "b")),
    )  # fmt: skip
    for n, (state, available) in enumerate(zip(HealthState, (1, 1, 0, 0), strict=True)):
        labels = {"resource": state.value}
        assert found.value("proxy_resource_in_flight", **labels) == n
        assert found.value("proxy_resource_available", **labels) == available
        info = {"pool": "pool", "account": f"of-{state.value}", "health": state.value}
        assert found.value("proxy_resource_info", **labels, **info) == 1
    assert found.value("proxy_resource_cooling_models", resource="x") == 2


def test_a_resource_that_went_is_measured_no_more() -> None:
    measured(resource("one"))
    found = measured(resource("two"))
    resources = {dict(labels).get("resource") for _, labels in found.samples}
    assert "two" in resources
    assert "one" not in resources


def test_the_ledger_and_the_queue_are_measured() -> None:
    states = ("running", "running", "silent", "closed")
    found = measured(accounts=tuple(map(account, states)), oldest_s=7.5)
    for name, count in (
        ("accepted", 10), ("stored", 6), ("pending", 2), ("in_flight", 1),
        ("dead_lettered", 1),
    ):  # fmt: skip
        assert found.value("proxy_ledger_requests", state=name) == count
    assert found.value("proxy_ledger_balanced") == 1
    assert found.value("proxy_queue_depth") == 4
    assert found.value("proxy_queue_oldest_seconds") == 7.5
    assert found.value("proxy_affinities") == 3
    for name, count in (("running", 2), ("silent", 1), ("closed", 1)):
        assert found.value("proxy_gateways", state=name) == count
    assert found.value("proxy_redis_up") == found.value("proxy_sql_up") == 1


def test_what_is_unknown_stays_and_is_said_to_be_unknown() -> None:
    measured(oldest_s=7.5)
    unknown = Ledger(
        **dict.fromkeys(("accepted", "stored", "pending", "in_flight"), None),
        dead_lettered=None, balanced=None, problems=(), unverified=(),
    )  # fmt: skip
    found = measured(
        oldest_s=None, queue_depth=None, affinity_count=None, ledger=unknown
    )
    assert found.value("proxy_redis_up") == found.value("proxy_sql_up") == 0
    assert found.value("proxy_queue_depth") == 4
    assert found.value("proxy_queue_oldest_seconds") == 7.5
    assert found.value("proxy_ledger_requests", state="stored") == 6
    assert found.value("proxy_ledger_balanced") == 1


def test_a_lost_request_is_measured() -> None:
    broken = LEDGER.model_copy(update={"balanced": False})
    assert measured(ledger=broken).value("proxy_ledger_balanced") == 0


def limits(model: str, remaining: int | None, limit: int | None = 100) -> ModelLimits:
    return ModelLimits(model=model, remaining_tokens=remaining, limit_tokens=limit)


def test_limits_of_accounts_are_measured_once() -> None:
    known = (limits("gpt", 40), limits("x", None, None))
    pair = [resource(id_, account_id="acct", limits=known) for id_ in ("a", "b")]
    found = measured(*pair)
    labels = {"account": "acct", "model": "gpt", "limit": "tokens"}
    assert found.value("proxy_account_limit_remaining", **labels) == 40
    assert found.value("proxy_account_limit", **labels) == 100
    assert found.value("proxy_account_limit", model="x") == 0
    assert found.value("proxy_account_limit", limit="requests") == 0


def test_of_many_limits_the_scarcest_are_measured() -> None:
    names = [f"model-{n:04}" for n in range(metrics.MOST_LIMITS + 50)]
    known = tuple(limits(name, n, 10_000) for n, name in enumerate(reversed(names)))
    found = measured(resource("a", limits=(*known, limits("x" * 101, 1, 10_000))))
    shown = {
        dict(labels)["model"]
        for name, labels in found.samples
        if name == "proxy_account_limit_remaining"
    }
    assert len(shown) == metrics.MOST_LIMITS
    assert names[-1] in shown  # nothing is left of it
    assert "other" in shown
    assert names[0] not in shown
