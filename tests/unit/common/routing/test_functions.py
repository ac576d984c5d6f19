"""Calls of the routing functions: their arguments and parsed replies.
tests/integration/routing/functions tests the functions themselves."""

import json
import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from redis.exceptions import ResponseError

from libs.common.contracts.events import DecisionEvent
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.routing import types
from libs.common.routing.budgets import quota_at
from libs.common.routing.functions import (
    ABANDONED_AT_ONCE,
    CALLED,
    RoutingFunctions,
    Terms,
)
from libs.common.routing.types import Asker, Lease, Owner, model_digest
from libs.common.upstream_answers.verdicts import Verdict
from tests.support.memory.called_functions import NOW, Redis
from tests.support.processes.processes import ROOT
from tests.support.values.asks import made_ask, made_release

pytestmark = pytest.mark.asyncio
ASKER = Asker("team:red", True, "nr", ("f1",))
SOURCES = ROOT / "libs/common/routing"
CALLING = "functions", "call_forms"
MISSING = ResponseError("ERR Function not found")
FULL = ResponseError("OOM command not allowed")


# The library ----------------------------------------------------------------


def listed(*names: str) -> list[Any]:
    return [[b"functions", [[b"name", name.encode()] for name in names]]]


async def test_a_gateway_needs_the_functions_that_it_calls() -> None:
    ours = {DEFAULT.function(name) for name in CALLED}
    await Redis(FUNCTION=listed(*ours, "rpx_more_v1")).functions.require_functions()
    older = listed(*(ours - {"rpx_check_v1"}))
    with pytest.raises(NoCatalogue, match=r"older router .* without rpx_check_v1\."):
        await Redis(FUNCTION=older).functions.require_functions()
    with pytest.raises(NoCatalogue, match="No router"):
        await Redis(FUNCTION=[]).functions.require_functions()


async def test_all_functions_that_are_called_are_required() -> None:
    source = "".join((SOURCES / f"{name}.py").read_text() for name in CALLING)
    of_the_router = {"explain_v3"}
    elsewhere = {"resend_v1", "reserve_v1", "doubt_v1", "count_v1"}
    listed_ones = re.search(r"^CALLED = .*?^\)", source, re.MULTILINE | re.DOTALL)
    assert listed_ones is not None
    calls = source.replace(listed_ones[0], "")
    called = set(re.findall(r'"(\w+_v\d+)"', calls)) | elsewhere
    assert called - of_the_router == CALLED


# Acquire --------------------------------------------------------------------


async def test_a_decision() -> None:
    event = b'{"reason":"a|b"}'
    redis = Redis(rpx_acquire_v4=b"one|panic|v1|1|" + event)
    decision = await redis.functions.acquire(made_ask())
    assert (decision.resource_id, decision.reason) == ("one", "panic")
    assert (decision.version, decision.trial) == ("v1", True)
    assert (decision.event, decision.degraded) == (event, False)


async def test_what_acquire_is_asked_with() -> None:
    redis = Redis(rpx_acquire_v4=b"one|panic|v1|0|{}")
    ask = made_ask(
        session="s", model="m", bound=("b1", "b2"), account_bound=True,
        tried=("t1",), previous="p", draw=7, pool_id="main",
    )  # fmt: skip
    await redis.functions.acquire(ask)
    head = redis.arguments()[11]
    assert redis.arguments() == (
        "gw", "r1", 1, "d-r1", "main", "s", "m", 1, 0, "", "7", head, ask.lease, NOW,
        "p", 2, "", 0, "", "0", b"", "b1", "b2", "t1",
    )  # fmt: skip


async def test_limits_are_named_by_their_id_and_told_when_asked_for() -> None:
    quota = quota_at("k", 9, None, (), 0)
    redis = Redis(rpx_acquire_v5=b"|" * 16 + b"one|panic|v1|0|{}")
    ask = made_ask(quota=quota, tried=("t1",))
    assert (await redis.functions.acquire(ask)).resource_id == "one"
    assert (redis.arguments()[9], redis.arguments()[-1]) == (quota.id, "t1")
    for given, may_use in (({"tells": True}, "0"), ({"may_use": "7"}, "7")):
        await redis.functions.acquire(replace(ask, **given))
        assert redis.arguments()[9] == ""
        assert redis.arguments()[-3:] == ("t1", may_use, quota.text)


async def test_whose_request_acquire_is_asked_for() -> None:
    redis = Redis(rpx_acquire_v4=b"one|panic|v1|0|{}")
    ask = made_ask(bound=("b1",), tried=("t1",), asker=ASKER)
    await redis.functions.acquire(ask)
    assert redis.arguments()[15:] == (
        1, "team:red", 1, "nr", "0", b"", "b1", "f1", "t1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "flag"),
    [({}, 0), ({"resolved": True}, 1), ({"resolved": True, "replayed": True}, "r")],
)
async def test_whether_ids_were_looked_for(given: dict[str, Any], flag: Any) -> None:
    redis = Redis(rpx_acquire_v4=b"one|panic|v1|0|{}")
    await redis.functions.acquire(made_ask(**given))
    assert redis.arguments()[8] == flag


@pytest.mark.parametrize("cause", ["", "rate_limited"])
async def test_the_head_of_a_decisions_event_is_what_the_contract_says(
    cause: str,
) -> None:
    redis = Redis(rpx_acquire_v4=b"one|panic|v1|0|{}")
    await redis.functions.acquire(made_ask(cause=cause, session_id="ü", pool_id="p"))
    head = redis.arguments()[11]
    event = msgspec.json.decode(head + b',"reason":"panic"}', type=DecisionEvent)
    assert (event.request_id, event.attempt) == ("r1", 1)
    assert (event.session_id, event.pool_id) == ("ü", "p")
    assert (event.created_at_ms, event.cause) == (NOW, cause or None)


async def test_a_decision_has_a_time_also_by_the_servers_clock() -> None:
    redis = Redis(rpx_acquire_v4=b"one|panic|v1|0|{}")
    await RoutingFunctions(redis, "events").acquire(made_ask())
    assert json.loads(redis.arguments()[11] + b"}")["created_at_ms"] > NOW
    assert redis.arguments()[13] == ""


async def test_a_refusal_has_the_event_that_was_written() -> None:
    redis = Redis(rpx_acquire_v4=[b"no_capacity", b"1200", b'{"id":"d"}'])
    with pytest.raises(types.NoCapacity) as refusal:
        await redis.functions.acquire(made_ask())
    assert (refusal.value.retry_after_ms, refusal.value.event) == (1200, b'{"id":"d"}')


async def test_a_refusal_without_an_event() -> None:
    redis = Redis(rpx_acquire_v4=[b"look_up", b"5"])
    with pytest.raises(types.UnknownIds) as refusal:
        await redis.functions.acquire(made_ask())
    assert refusal.value.event == b""


@pytest.mark.parametrize(("error", "kind"), [(MISSING, NoCatalogue), (FULL, RedisAway)])
async def test_a_redis_that_cannot_serve(
    error: Exception, kind: type[Exception]
) -> None:
    redis = Redis(rpx_acquire_v4=error, rpx_held_v2=error)
    with pytest.raises(kind):
        await redis.functions.acquire(made_ask())
    with pytest.raises(kind):
        await redis.functions.held("gw")


# Sockets, and explain ------------------------------------------------------------


async def test_a_sockets_request_names_its_socket() -> None:
    event = b'{"resource_id":"one","reason":"socket"}'
    redis = Redis(rpx_pin_v4=b"one|socket|v1|0|" + event)
    ask = made_ask(socket="one", turn="c", bound=("b1",), tried=("two",), asker=ASKER)
    decision = await redis.functions.acquire(ask)
    assert (decision.resource_id, decision.reason) == ("one", "socket")
    assert decision.event == event
    # After what acquire has, before the ids and the resources.
    assert redis.arguments()[16:] == (
        "team:red", 1, "nr", "0", b"", "one", "c", "b1", "f1", "two",
    )  # fmt: skip


async def test_a_request_that_was_decided_has_no_second_event() -> None:
    redis = Redis(rpx_pin_v4=b"one|socket|v1|0|")
    ask = made_ask(socket="one", turn=types.DECIDED)
    assert (await redis.functions.acquire(ask)).event == b""


async def test_a_check_asks_about_the_ids() -> None:
    ask = made_ask(bound=("b1",), asker=ASKER)
    redis = Redis(rpx_check_v1=b"")
    await redis.functions.check(ask)
    assert redis.arguments() == (0, "team:red", 1, "nr", "b1", "f1")
    redis = Redis(rpx_check_v1=[b"look_up", b"5"])
    with pytest.raises(types.UnknownIds):
        await redis.functions.check(ask)


async def test_an_explanation() -> None:
    candidates = b'[{"resource":"one"}]'
    reply = [b"ok", b"one", b"panic", 1, b"30", candidates]
    redis = Redis(rpx_explain_v3=reply)
    found = await redis.functions.explain(made_ask(), Owner("one", "acct", "key:k"))
    assert (found.status, found.resource_id, found.reason) == ("ok", "one", "panic")
    assert (found.trial, found.wait_ms) == (True, 30)
    assert found.candidates == [{"resource": "one"}]
    assert redis.arguments()[9] == "one|acct|key:k"
    assert redis.arguments()[14:] == ("", 0, "0", b"")


async def test_an_explanation_that_names_no_resource() -> None:
    redis = Redis(rpx_explain_v3=[b"owner_gone", b"", b"", 0, b"0", b"[]"])
    assert (await redis.functions.explain(made_ask(), None)).resource_id is None
    redis = Redis(rpx_explain_v3=[b"unknown_pool", b"a"])
    with pytest.raises(types.UnknownPool):
        await redis.functions.explain(made_ask(), None)


# Release --------------------------------------------------------------------


async def test_what_release_is_told_with() -> None:
    redis = Redis(rpx_release_v3=b"5-0")
    verdict = Verdict(kind="limited", cause="429", cooldown_ms=9, latency_ms=1.5)
    release = made_release(
        "one", verdict=verdict, model="gpt-5", session="s", learned=("a", "b"),
        tenant="team:red",
    )  # fmt: skip
    assert await redis.functions.release(release) == b"5-0"
    assert redis.arguments() == (
        "gw", "r1", "one", "limited", "429", 9, "1.5", NOW, "s", 1, 2,
        model_digest("gpt-5"), "gpt-5", b"{}", "team:red", "", "", "a", "b",
    )  # fmt: skip


LIMITED = Verdict(kind="limited", cause="429", cooldown_ms=9, of_account=True)


async def test_limits_of_accounts() -> None:
    redis = Redis(rpx_release_v3=b"", rpx_acquire_v4=b"one|panic|v1|0|{}")
    release = made_release("one", verdict=LIMITED, limits="0 1 2 3 4 5 6")
    await redis.functions.release(release)
    assert redis.arguments()[15:] == ("account", "0 1 2 3 4 5 6")
    await redis.functions.acquire(made_ask(tokens=70))
    assert redis.arguments()[19:] == ("70", b"")


async def test_limits_that_do_not_matter() -> None:
    """With PROXY_LIMIT_AWARE=false."""
    redis = Redis(
        rpx_release_v3=b"",
        rpx_acquire_v4=b"one|panic|v1|0|{}",
        rpx_explain_v3=[b"ok", b"one", b"panic", 1, b"30", b"[]"],
    )
    unaware = RoutingFunctions(redis, "events", Terms(limit_aware=False))
    release = made_release("one", verdict=LIMITED, limits="0 1 2 3 4 5 6")
    await unaware.release(release)
    assert redis.arguments()[15:] == ("", "")
    await unaware.acquire(made_ask(tokens=70))
    assert redis.arguments()[19:] == ("", b"")
    await unaware.explain(made_ask(tokens=70), None)
    assert redis.arguments()[16:] == ("", b"")


TERMS_TO_WAIT = Terms(most_in_flight=5, queue_ms=5_000)


async def test_a_request_that_waits() -> None:
    redis = Redis(
        rpx_acquire_v4=[b"busy", b"70"],
        rpx_queue_v1=[b"queued", b"pool:*"],
        rpx_turns_v1=[b"25", b"r1", b"r2"],
    )
    functions = RoutingFunctions(redis, "events", TERMS_TO_WAIT, clock=lambda: NOW)
    with pytest.raises(types.Busy) as busy:
        await functions.acquire(made_ask())
    assert (busy.value.retry_after_ms, busy.value.event) == (70, b"")
    assert redis.arguments()[19:] == ("0", b"5 5000 0")
    place = types.Place("key:k", 900, 2.5)
    with pytest.raises(types.Queued) as queued:
        await functions.acquire(made_ask(place=place, bound=("b1",)))
    assert queued.value.waits_for == "pool:*"
    expected = ("0", b"5 5000 0", "key:k", "2.5", "900", "", "", "b1")
    assert redis.arguments()[19:] == expected
    assert await functions.turns("gw", ["pool:*"]) == (0.025, ["r1", "r2"])
    assert redis.arguments() == ("gw", NOW, b"5 5000 0", "pool:*")
    functions.leave(place.entry(made_ask()), lambda: None)
    assert redis.told[-1][5:] == ("r1|key:k|gw", NOW)


@pytest.mark.parametrize("cause", ["", "rate_limited"])
async def test_a_decision_says_how_long_its_request_waited(cause: str) -> None:
    redis = Redis(rpx_acquire_v4=b"one|panic|v1|0|{}")
    await redis.functions.acquire(made_ask(cause=cause, waited_ms=70))
    decided = redis.arguments()[11] + b',"reason":"panic"}'
    event = msgspec.json.decode(decided, type=DecisionEvent)
    assert (event.waited_ms, event.cause) == (70, cause or None)


async def test_the_functions_and_keys_of_another_stack() -> None:
    """Those of requests are named once; the other ones when they are called."""
    other = Keys("b_2")
    names = (
        "acquire_v4",
        "release_v3",
        "heartbeat_v2",
        "held_v2",
        "check_v1",
        "leave_v1",
    )
    beat = [b"", 0, b"", b"", b"0-0", 0]
    answers = [b"one|panic|v1|0|{}", b"1-0", beat, [[], []], b""]
    redis = Redis(**{f"b_2_{n}": a for n, a in zip(names, answers, strict=False)})
    functions = RoutingFunctions(redis, "s", keys=other)
    await functions.acquire(made_ask())
    await functions.release(made_release("one"))
    await functions.heartbeat("gw")
    await functions.held("gw")
    await functions.check(made_ask(bound=("b1",)))
    functions.leave("entry", lambda: None)
    called = [command[:5] for command in (*redis.commands, *redis.told)]
    version = other.catalogue_version()
    assert called == [("FCALL", f"b_2_{name}", 2, version, "s") for name in names]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"tokens": 5}, "release_v5"),
        ({"tokens": 2**20}, "release_v4"),
        ({"tokens": 5, "limits": "0 1 2 3 4 5 6"}, "release_v4"),
    ],
)
async def test_the_release_of_a_key_with_limits_in_another_stack(
    given: dict[str, Any], name: str
) -> None:
    redis = Redis(**{f"b_2_{name}": b"1-0"})
    quota = quota_at("k", 1, None, (), NOW)
    functions = RoutingFunctions(redis, "s", keys=Keys("b_2"))
    await functions.release(made_release("one", quota=quota, **given))
    assert redis.commands[0][1] == f"b_2_{name}"


async def test_a_release_that_judges_nothing() -> None:
    redis = Redis(rpx_release_v3=b"")
    await redis.functions.release(made_release("one", verdict=None, event=None))
    assert redis.arguments() == (
        "gw", "r1", "one", "", "", 3, "", NOW, "", 1, 2, "", "", b"", "", "", "",
    )  # fmt: skip


async def test_a_release_is_told_as_it_is_called() -> None:
    redis, failed = Redis(rpx_release_v3=b""), []
    release = made_release("one")
    redis.functions.report(release, lambda: failed.append(release))
    await redis.functions.release(release)
    assert redis.told == redis.commands
    assert failed == [release]


# Gateways -------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"4-1"])
async def test_a_heartbeat_is_told_how_the_stream_stands(first: bytes) -> None:
    redis = Redis(rpx_heartbeat_v2=[b"v1", 1, b"123", first, b"9-0", 17])
    beat = await redis.functions.heartbeat("gw", b"{}")
    assert (beat.version, beat.known, beat.born) == ("v1", True, "123")
    assert beat.ends.first_id == ((4, 1) if first else None)
    assert (beat.ends.last_id, beat.ends.added) == ((9, 0), 17)
    assert redis.arguments() == ("gw", NOW, b"{}")


async def test_a_heartbeat_into_an_emptied_redis() -> None:
    redis = Redis(rpx_heartbeat_v2=[b"", 0, b"", b"", b"0-0", 0])
    beat = await redis.functions.heartbeat("gw")
    assert (beat.version, beat.known) == (None, False)


async def test_leases_that_a_gateway_holds_and_takes_again() -> None:
    page = [[b"7", b"one"], [b"a", b"b"]]
    redis = Redis(rpx_held_v2=page, rpx_resume_v1=2, rpx_abandon_v1=1)
    assert await redis.functions.held("gw") == ((b"7", b"one"), ["a", "b"])
    assert redis.arguments() == ("gw",)
    redis.answers["rpx_held_v2"] = [[], [b"c"]]
    assert await redis.functions.held("gw", (b"7", b"one")) == ((), ["c"])
    assert redis.arguments() == ("gw", b"7", b"one")
    leases = [Lease("a", "one", b"{}"), Lease("b", "two", b"{}")]
    assert await redis.functions.resume("gw", leases) == 2
    assert redis.arguments() == ("gw", "a", "one", b"{}", "b", "two", b"{}")
    assert await redis.functions.abandon("gw", ["a"]) == 1
    assert redis.arguments() == ("gw", "a")
    many = [str(number) for number in range(2 * ABANDONED_AT_ONCE + 1)]
    assert await redis.functions.abandon("gw", many) == 3
    assert redis.arguments() == ("gw", many[-1])
    assert await redis.functions.abandon("gw", []) == 0


async def test_owners_that_are_told_to_redis() -> None:
    redis = Redis(rpx_adopt_v1=3)
    sessions, ids = {"s": Owner("one", "acct", "key:k")}, {"i": None}
    assert await redis.functions.adopt(sessions, ids) == 3
    pairs = "session:s", "one|acct|key:k", "bound:i", "-"
    assert redis.arguments() == (1, 2, 4, NOW, *pairs)


async def test_accounts_that_are_learned() -> None:
    redis = Redis(rpx_account_v1=1)
    assert await redis.functions.learn_account("one", "org/p") is True
    assert redis.arguments() == ("one", "org/p")
