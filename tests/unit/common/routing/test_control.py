"""Routing functions off the hot path: their arguments, and what their replies become.
What the functions do is tested in tests/integration/routing/functions."""

import json
from typing import Any

import pytest

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import Alias, Catalogue, HealthState
from libs.common.contracts.events import END_OF_TIME_MS, encode
from libs.common.errors import NoCatalogue
from libs.common.redis.keys import DEFAULT
from libs.common.routing import control
from libs.common.routing.budgets import UNKNOWN
from libs.common.routing.control import ControlFunctions, Terms
from libs.common.routing.types import Queue
from libs.common.settings.services import RoutingSettings
from libs.common.upstream_answers.verdicts import Verdict
from tests.support.memory.called_functions import NOW, Redis
from tests.support.values.catalogues import made_resource
from tests.support.values.telemetry import gateway_event

pytestmark = pytest.mark.asyncio
CATALOGUE = Catalogue(
    version="v1",
    resources=(made_resource("one"), made_resource("two")),
    aliases=(Alias(alias="fast", provider_id="p", upstream_id="m"),),
)


# Library and catalogue ------------------------------------------------------


OURS = "#!lua name=rpx\n-- version 0.10.1\nsource"


def library(version: str) -> list[Any]:
    return [[b"library_code", f"#!lua name=rpx\n{version}\nother".encode()]]


@pytest.mark.parametrize(
    ("listed", "loads", "older"),
    [
        ([], True, False),
        ([[b"library_code", OURS.encode()]], False, False),
        (library("-- catalogue.lua"), True, True),  # 0.1 names no version
        (library("-- version 0.9.12"), True, True),
        (library("-- version 0.10.1"), True, False),  # another build of this version
        (library("-- version 0.10.1rc1"), True, False),
        (library("-- version 0.10.2"), False, False),
        (library("-- version 1.0.0"), False, False),
    ],
)
async def test_the_library_is_loaded_unless_it_or_a_newer_one_is_there(
    listed: Any, loads: bool, older: bool
) -> None:
    redis = Redis(FUNCTION=listed)
    functions = ControlFunctions(redis, "events", library=OURS)
    await functions.load_library()
    loaded = [c for c in redis.commands if c[1] == "LOAD"]
    assert loaded == ([("FUNCTION", "LOAD", "REPLACE", OURS)] if loads else [])
    assert await functions.library_is_older() is older


async def test_only_the_router_holds_the_library() -> None:
    with pytest.raises(AssertionError, match="router"):
        await ControlFunctions(Redis(), "events").load_library()


@pytest.mark.parametrize(("reply", "news"), [(1, True), (0, False)])
async def test_publishing_writes_an_event(reply: int, news: bool) -> None:
    redis = Redis(rpx_publish_v1=reply)
    assert await redis.functions.publish(CATALOGUE, "e1") is news
    version, document, id_, event = redis.arguments()
    assert (version, id_) == ("v1", "e1")
    assert Catalogue.model_validate_json(document) == CATALOGUE
    told = json.loads(event)
    assert (told["resources"], told["aliases"]) == (["one", "two"], ["fast"])


@pytest.mark.parametrize("document", [None, b"{}", b"rubbish"])
async def test_a_catalogue_that_is_none_of_ours(document: bytes | None) -> None:
    with pytest.raises(NoCatalogue):
        await Redis(GET={DEFAULT.catalogue(): document}).functions.catalogue()


async def test_the_catalogue_and_its_version() -> None:
    document = CATALOGUE.model_dump_json().encode()
    redis = Redis(
        GET={DEFAULT.catalogue(): document, DEFAULT.catalogue_version(): b"v1"}
    )
    assert await redis.functions.catalogue() == CATALOGUE
    assert await redis.functions.catalogue_version() == "v1"
    assert await Redis(GET={}).functions.catalogue_version() is None


# Gateways -------------------------------------------------------------------


async def test_reports_have_their_age_by_the_servers_clock() -> None:
    books = encode(gateway_event("gw"))
    redis = Redis(
        TIME=[b"10", b"500000"],
        HGETALL={b"gw": b"10000|" + books, b"odd": b"of another version"},
    )
    (report,) = (await redis.functions.reports()).items()
    assert (report[0], report[1].age_ms) == ("gw", 500)


async def test_accounts_that_were_learned() -> None:
    redis = Redis(HGETALL=[b"one", b"org/p"])
    assert await redis.functions.learned_accounts() == {"one": "org/p"}


@pytest.mark.parametrize("strays", [False, True])
async def test_reaping(strays: bool) -> None:
    redis = Redis(rpx_reap_v2=[4])
    assert await redis.functions.reap(5000, strays=strays) == 4
    assert redis.arguments() == (5000, NOW, int(strays))


async def test_reaping_in_parts() -> None:
    """Each call is given what the one before said, whatever that is."""
    redis = Redis(rpx_reap_v2=[4, b"12", b"one", b"gw"])
    assert await redis.functions.reap(5000, go_on=no) == 4

    async def rest() -> bool:
        redis.answers["rpx_reap_v2"] = [1]
        return True

    assert await redis.functions.reap(5000, go_on=rest) == 5
    assert redis.arguments() == (5000, NOW, 0, b"12", b"one", b"gw")
    redis.answers["rpx_reap_v2"] = [0]
    assert await redis.functions.reap(5000) == 0
    assert redis.arguments() == (5000, NOW, 0)


async def test_sweeping_in_parts() -> None:
    redis = Redis(rpx_sweep_v1=[b"0", b"key:k", b"7", b""])
    await redis.functions.sweep(go_on=no)
    assert redis.arguments() == ()

    async def rest() -> bool:
        redis.answers["rpx_sweep_v1"] = []
        return True

    await redis.functions.sweep(go_on=rest)
    assert redis.arguments() == (b"0", b"key:k", b"7", b"")


async def no() -> bool:
    return False


# Health and figures ---------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "state"),
    [([b"ok", b"degraded"], HealthState.DEGRADED), ([], HealthState.UNKNOWN)],
)
async def test_a_checks_verdict(reply: list[bytes], state: HealthState) -> None:
    redis = Redis(rpx_verdict_v1=reply)
    verdict = Verdict(kind="fault", cause="500", latency_ms=1.23456)
    assert await redis.functions.verdict("one", verdict) is state
    assert redis.arguments() == ("one", "fault", "500", 3, 1.235, NOW)
    await redis.functions.verdict("one", Verdict(kind="ok", cooldown_ms=0))
    assert redis.arguments() == ("one", "ok", "", 0, "", NOW)


async def test_states_come_in_the_catalogues_order() -> None:
    live = b'[{"id":"two","in_flight":2},{"id":"one","in_flight":1},{"id":"gone"}]'
    document = CATALOGUE.model_dump_json().encode()
    redis = Redis(GET={DEFAULT.catalogue(): document}, rpx_states_v1=[b"ok", live])
    states = await redis.functions.states()
    assert [(state.id, state.in_flight) for state in states] == [("one", 1), ("two", 2)]
    assert await redis.functions.in_flight() == 3


async def test_no_states_without_a_catalogue() -> None:
    document = CATALOGUE.model_dump_json().encode()
    redis = Redis(GET={DEFAULT.catalogue(): document}, rpx_states_v1=[b"no_catalogue"])
    with pytest.raises(NoCatalogue):
        await redis.functions.states()


async def test_sessions_are_counted_from_now_on() -> None:
    redis = Redis(ZCOUNT=5)
    assert await redis.functions.affinity_count() == 5
    assert redis.commands[0][1] == DEFAULT.sessions()


# Queues -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "encoded"),
    [
        (Terms(), b""),
        (Terms(queue_ms=5_000), b" 5000 0"),
        (Terms(most_in_flight=5), b"5 0 0"),
        (Terms(most_in_flight=5, queue_ms=70, bound_queue_ms=70), b"5 70 70"),
    ],
)
async def test_terms_as_functions_read_them(terms: Terms, encoded: bytes) -> None:
    assert terms.encoded == encoded


async def test_queues_by_what_their_requests_wait_for() -> None:
    reply = [b"pool:*", 3, 2, b"pool:a:b", 1, 1, b"account:x", 4, 1]
    found = await Redis(rpx_queues_v1=reply).functions.queues()
    assert found == [
        Queue(None, None, 3, 2), Queue("a:b", None, 1, 1), Queue(None, "x", 4, 1)
    ]  # fmt: skip


async def test_terms_of_settings() -> None:
    environ = {"PROXY_MAX_IN_FLIGHT": "5", "PROXY_RESOURCE_COOLDOWN_SECONDS": "2"}
    terms = Terms.of(RoutingSettings.read(environ))
    assert terms == Terms(cooldown_ms=2_000, most_in_flight=5, queue_ms=5_000)


async def test_impaired_parts_of_gateways() -> None:
    redis = Redis(MGET=[b"journal,router", None])
    found = await ControlFunctions(redis, "events").impaired(["gw-1", "gw-2"])
    assert found == {"gw-1": ("journal", "router")}
    assert redis.commands == [
        ("MGET", DEFAULT.impaired("gw-1"), DEFAULT.impaired("gw-2"))
    ]


async def test_without_gateways_nobody_is_asked() -> None:
    redis = Redis()
    assert await ControlFunctions(redis, "events").impaired([]) == {}
    assert redis.commands == []


# Budgets ---------------------------------------------------------------------


BUDGETS = (
    Budget("key:k", tokens=9, window="total"),
    Budget("team:t", nanos=9, window="total", reserve=True),
)
WHOLE = f"total@UTC 0 {END_OF_TIME_MS}"


class Summing(Redis):
    """Redis counts the key, and sums the team after some questions (None: never)."""

    def __init__(self, after: int | None) -> None:
        super().__init__(rpx_count_v1=1)
        self.after = after

    def call(self, *parts: Any) -> Any:
        asked = sum(command[1] == "rpx_spend_v2" for command in self.commands)
        summed = self.after is not None and asked > self.after
        told = f"{WHOLE} 4 5 0 1" if summed else f"{WHOLE} 0 0 0 0" if asked else ""
        self.answers["rpx_spend_v2"] = [f"{WHOLE} 7 8 0 1".encode(), told.encode()]
        return super().call(*parts)

    def names(self) -> list[str]:
        return [command[1] for command in self.commands]


async def test_what_redis_does_not_know_is_summed_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "ASK_AGAIN_S", 0)
    redis = Summing(after=2)
    found = await redis.functions.summed_spend(BUDGETS, 1)
    assert [spend and (spend.tokens, spend.nanos) for spend in found] == [
        (7, 8),
        (4, 5),
    ]
    assert redis.names() == ["rpx_spend_v2", "rpx_count_v1", *["rpx_spend_v2"] * 3]
    (counted,) = redis.commands[1][5:]
    assert json.loads(counted) == {
        "subject": "team:t", "kind": "total@UTC", "starts": 0, "ends": END_OF_TIME_MS,
        "soft": 80, "nanos": 9, "reserve": True,
    }  # fmt: skip


async def test_what_redis_knows_is_told_at_once() -> None:
    redis = Summing(after=-1)
    await redis.functions.summed_spend(BUDGETS, 1)
    assert redis.names() == ["rpx_spend_v2"]


async def test_a_sum_is_not_awaited_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ASK_AGAIN_S", 0)
    monkeypatch.setattr(control, "SUMMED_WITHIN_S", 0.01)
    found = await Summing(after=None).functions.summed_spend(BUDGETS, 1)
    assert found[1] is not None
    assert found[1].sure == UNKNOWN
