"""Requests from their arrival to their settlement, which happens once."""

import time
from pathlib import Path

import pytest

from libs.common.bodies.hints import Hints
from libs.common.headers import NO_KINDS
from libs.common.proxy_keys import Principal
from libs.common.routing.types import (
    Decision,
    Owner,
    digest,
)
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.scrape.scrape import Scrape
from services.gateway.server.request import Request
from services.gateway.upstream.errors import Broken
from tests.support.clients.scrapes import Scraped
from tests.support.memory.clock import settled, timeless
from tests.support.memory.plane import World, answer
from tests.support.memory.requests import (
    COMPLETED,
    CREATED,
    KEY,
    STREAMING,
    asked,
    one_row,
)
from tests.support.memory.twin import Twin, resource


@timeless
async def test_an_answer_names_the_account_of_its_key(tmp_path: Path) -> None:
    twin = Twin(resource("a", account_id="a"))
    world = World(tmp_path, twin)
    for _ in range(2):
        _, upstream = await asked(world)
        upstream.feed(answer(b"{}", (b"openai-organization", b"org-1")))
        await settled()
    assert twin.named == [("a", "org-1")]


@timeless
async def test_a_trial_that_is_answered_frees_the_others_at_once(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says.append(Decision("a", "weighted_least_connections", "v3", trial=True))
    _, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED)
    await settled()
    (first,) = twin.released
    assert (first.verdict and first.verdict.kind, first.event) == ("ok", None)
    upstream.feed(COMPLETED)
    upstream.hangs_up()
    await settled()
    assert len(twin.released) == 2


@timeless
async def test_a_keys_requests_are_its_own_and_its_tokens_counted(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", pool_id="pool", tokens_per_minute=9))
    _, upstream = await asked(world, b'{"model":"m"}', KEY)
    body = (
        b'{"id":"resp_1","object":"response",'
        b'"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}'
    )
    upstream.feed(answer(body))
    row = await one_row(world)
    assert (row["proxy_key_id"], row["pool_id"]) == ("k", "pool")
    counted = world.twin.released[-1]
    assert counted.quota is not None
    assert (counted.tokens, counted.quota.key_id) == (3, "k")


LONG_KEY = "sk-proj-0123456789abcdef"


def shown() -> Scraped:
    return Scraped(Scrape().text().decode())


def arrived(world: World) -> Lifecycle:
    return world.in_flight.arrived(Request("POST", b"/v1/responses", []))


@timeless
async def test_a_request_arrives_with_a_record_and_no_row(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    life = arrived(world)
    record = life.record
    assert (record.method, record.path, record.gateway_id, record.transport) == (
        "POST",
        "/v1/responses",
        "gw-1",
        "http",
    )
    world.in_flight.settle(life, None)
    assert (world.requests, twin.released) == ([], [])
    world.is_at_rest()


@timeless
async def test_a_turn_arrives_on_a_socket(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    life = world.in_flight.arrived_on_socket(Request("GET", b"/v1/responses", []))
    assert (life.record.method, life.record.transport) == ("WS", "ws")


@timeless
async def test_a_request_is_settled_once(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin, capture=1000)
    life, flight = arrived(world), world.in_flight
    life.admit(b"/responses", Hints(), None)
    flight.admitted(life)
    assert flight.active == {life.record.id: life}
    before = shown().value("proxy_requests_total", outcome="cancelled")
    life.cancelled()
    capture = world.ledger.capturer.begin(b"{}", NO_KINDS)
    for _ in range(3):
        flight.settle(life, capture)
    world.is_at_rest()
    after = shown().value("proxy_requests_total", outcome="cancelled")
    assert after == before + 1
    assert len(twin.released) == 1
    assert world.requests[0]["outcome"] == "cancelled"


@pytest.mark.parametrize("degraded", [False, True])
@timeless
async def test_a_failed_attempt_is_judged_once(
    tmp_path: Path, twin: Twin, degraded: bool
) -> None:
    world = World(tmp_path, twin)
    life, flight = arrived(world), world.in_flight
    life.admit(b"/responses", Hints(), None)
    flight.admitted(life)
    life.acquired(Decision("a", "x", "v", degraded=degraded), "account", 1)
    await world.catalogue.refresh()
    world.offline.local.publish(twin.local.resources.values())
    life.failed(Broken("x"))
    before = shown().value("proxy_attempts_total", resource="a", verdict="fault")
    flight.attempt_failed(life)
    flight.settle(life, None)
    verdicts = [release.verdict and release.verdict.kind for release in twin.released]
    assert verdicts == ["fault", None]
    after = shown().value("proxy_attempts_total", resource="a", verdict="fault")
    assert after == before + 1
    seen = world.offline.local.health["a"].failures
    assert (seen > 0) is degraded


@timeless
async def test_what_completed_is_remembered_for_the_time_without_redis(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    _, upstream = await asked(world, b'{"metadata":{"session_id":"s"}}')
    upstream.feed(answer())
    row = await one_row(world)
    owner = Owner(row["resource_id"], row["account_id"], "")
    assert world.offline.local.ids[digest("resp_1")] == owner
    assert list(world.offline.local.sessions.values()) == [owner]


@pytest.mark.parametrize("account", [None, LONG_KEY])
@timeless
async def test_an_account_that_is_no_account_is_not_learned(
    tmp_path: Path, account: str | None
) -> None:
    twin = Twin(resource("a", account_id="a"))
    world = World(tmp_path, twin)
    world.keys["KEY_A"] = LONG_KEY
    _, upstream = await asked(world)
    named = [] if account is None else [(b"openai-organization", account.encode())]
    upstream.feed(answer(b"{}", *named))
    await one_row(world)
    assert twin.named == []


# Limits of accounts -----------------------------------------------------------------

LIMITS = (
    (b"x-ratelimit-limit-tokens", b"1000"),
    (b"x-ratelimit-remaining-tokens", b"100"),
    (b"x-ratelimit-reset-tokens", b"30s"),
)
BODY = b'{"model":"m","input":"x","max_output_tokens":300}'
USED = (
    b'{"id":"resp_1","object":"response","model":"m-1",'
    b'"usage":{"input_tokens":1200,"output_tokens":5,"total_tokens":1205}}'
)
LIMITED = (
    b'{"error":{"code":"rate_limit_exceeded","message":"Rate limit reached for m in '
    b'organization org-1 on tokens per min (TPM)."}}'
)


@timeless
async def test_limits_ride_on_the_release(tmp_path: Path, twin: Twin) -> None:
    world, began = World(tmp_path, twin), time.perf_counter()
    _, upstream = await asked(world, body=BODY)
    upstream.feed(answer(USED, *LIMITS))
    await one_row(world)
    (release,) = twin.released
    age_ms, _, limits = release.limits.partition(" ")
    assert limits == "-1 -1 -1 1000 100 30000"
    assert 0 <= int(age_ms) <= (time.perf_counter() - began) * 1000
    assert twin.asked[0].tokens == len(BODY) // 4 + 300


@timeless
async def test_limits_of_a_429_ride_on_its_verdict(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    _, upstream = await asked(world, body=BODY)
    upstream.feed(answer(LIMITED, *LIMITS, status=429))
    await settled()
    world.upstreams[1].feed(answer(USED))
    await one_row(world)
    failed, ended = twin.released
    assert failed.verdict is not None
    assert failed.verdict.of_account
    assert (failed.limits != "", ended.limits) == (True, "")


@timeless
async def test_an_estimate_follows_what_requests_took(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    for _ in range(2):
        _, upstream = await asked(world, body=BODY)
        upstream.feed(answer(USED))
        await settled()
    first, second = (ask.tokens for ask in twin.asked)
    assert first is not None
    assert second is not None
    assert first < second < first + 1_200


@timeless
async def test_limits_that_do_not_matter(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin, aware=False)
    _, upstream = await asked(world, body=BODY)
    upstream.feed(answer(USED, *LIMITS))
    await one_row(world)
    (release,) = twin.released
    assert (release.limits, twin.asked[0].tokens) == ("", None)


@timeless
async def test_a_request_without_a_model_has_no_limits(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    _, upstream = await asked(world, body=b"{}")
    upstream.feed(answer(b"{}", *LIMITS))
    await one_row(world)
    (release,) = twin.released
    assert (release.limits, twin.asked[0].tokens) == ("", None)
