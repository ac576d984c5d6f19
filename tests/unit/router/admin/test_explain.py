"""`POST /admin/route/explain` over fakes: the calls of routing functions, and the
answer. tests/integration/router/process uses real ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from libs.common.contracts.catalogue import Alias, Catalogue, ModelTarget
from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.routing.aliases import session_within
from libs.common.routing.types import (
    Ask,
    Explanation,
    Kept,
    NoResources,
    Owner,
    UnknownIds,
    UnknownPool,
    digest,
    model_digest,
    session_digest,
)
from services.router.admin.explain import LARGEST_BODY, Explain
from tests.support.values.admin import client, problem
from tests.support.values.catalogues import made_resource

FOUND = Explanation(
    status="ok",
    resource_id="openai-1",
    reason="weighted_least_connections",
    trial=False,
    wait_ms=0,
    candidates=[{"resource": "openai-1", "score": 1.0}],
)
CATALOGUE = Catalogue(
    version="v1",
    resources=(made_resource(), made_resource("acme", provider_id="acme")),
    aliases=(
        Alias(alias="fast", provider_id="acme", upstream_id="gpt-5"),
        Alias(alias="closed", provider_id="gone", upstream_id="gpt-5"),
    ),
)
OWNER = Owner("openai-1", "acct")
TENANTS = Owner("acme", "acct", "key:k")


@dataclass
class World:
    """The function library, SQL and the catalogue."""

    answers: list[Any] = field(default_factory=lambda: [FOUND])
    catalogue: Catalogue = CATALOGUE
    known: dict[str, Owner] = field(default_factory=dict)
    sessions: dict[tuple[str, str], Owner] = field(default_factory=dict)
    sql: Exception | None = None
    asked: list[tuple[Ask, Owner | None]] = field(default_factory=list)
    homes: dict[str, Kept] = field(default_factory=dict)  # in Redis, by digest

    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation:
        self.asked.append((ask, owner))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Explanation)
        return answer

    async def kept(self, sessions: Iterable[str], ids: Iterable[str]) -> list[Kept]:
        return [self.homes.get(digest, Kept()) for digest in (*sessions, *ids)]

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        if self.sql:
            raise self.sql
        return {id_: self.known[id_] for id_ in ids if id_ in self.known}

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        return self.sessions.get((session_id, tenant))

    def post(self, **more: Any) -> Any:
        return client({"/explain": Explain(self, self, self)}).simulate_post(
            "/explain", **more
        )


def asked_of(world: World) -> Ask:
    return world.asked[-1][0]


def test_where_a_request_would_go() -> None:
    world = World()
    told = world.post(json={"body": {"model": "gpt-5"}}).json
    assert (told["resource_id"], told["status"]) == ("openai-1", "ok")
    assert (told["looked_up_in_sql"], told["retry_after_ms"]) == (False, None)
    assert told["upstream_model"] == told["hints"]["model"] == "gpt-5"
    assert told["candidates"][0]["resource"] == "openai-1"
    assert asked_of(world).model == model_digest("gpt-5")
    assert asked_of(world).attempt == 1


def test_hints_are_read_as_a_gateway_reads_them() -> None:
    world = World()
    told = world.post(
        json={
            "path": "/v1/responses?x=1",
            "headers": {"X-Proxy-Pool-Id": "main", "X-Proxy-Session-Id": "s"},
            "body": {"previous_response_id": "resp_1"},
        }
    ).json
    assert told["hints"]["bound_ids"] == ["resp_1"]
    ask = asked_of(world)
    assert ask.bound == (digest("resp_1"),)
    assert (told["hints"]["pool_id"], told["hints"]["session_id"]) == ("main", "s")
    assert (ask.pool_id, ask.session_id, ask.session) == ("main", "s", digest("s"))


def test_asking_again_says_the_same() -> None:
    world = World(answers=[FOUND, FOUND])
    for _ in range(2):
        world.post(json={"body": {"model": "gpt-5"}})
    assert world.asked[0] == world.asked[1]


@pytest.mark.parametrize("body", [b"{}", b'{"body":null}'])
def test_nothing_need_be_told(body: bytes) -> None:
    assert World().post(body=body).status_code == 200


# Ids that only SQL knows ----------------------------------------------------


@pytest.mark.parametrize(("known", "owner"), [({"resp_1": OWNER}, OWNER), ({}, None)])
def test_ids_that_redis_does_not_know_are_looked_up(
    known: dict[str, Owner], owner: Owner | None
) -> None:
    world = World(answers=[UnknownIds(0), FOUND], known=known)
    told = world.post(json={"body": {"previous_response_id": "resp_1"}}).json
    assert told["looked_up_in_sql"] is True
    assert [given for _, given in world.asked] == [None, owner]
    assert [ask.resolved for ask, _ in world.asked] == [False, True]


@pytest.mark.parametrize(
    ("tenant", "found"), [("", OWNER), ("key:k", TENANTS), ("key:other", None)]
)
def test_encrypted_content_is_looked_up_by_its_session(
    tenant: str, found: Owner | None
) -> None:
    sessions = {("s", ""): OWNER, ("s", "key:k"): TENANTS}
    world = World(answers=[UnknownIds(0), FOUND], sessions=sessions)
    body = {
        "input": [{"type": "reasoning", "encrypted_content": "gAAA"}],
        "prompt_cache_key": "s",
    }
    headers = {"session_id": "s"}
    told = world.post(json={"body": body, "headers": headers, "tenant": tenant})
    assert told.json["looked_up_in_sql"] is True
    ask, owner = world.asked[-1]
    assert ask.account_bound
    assert ask.session == session_digest("s", tenant)
    assert owner == found


# Model aliases --------------------------------------------------------------


def test_an_alias_leads_to_its_provider() -> None:
    world = World()
    told = world.post(
        json={"body": {"model": "fast"}, "headers": {"session_id": "s"}}
    ).json
    assert (told["provider_id"], told["upstream_model"]) == ("acme", "gpt-5")
    ask = asked_of(world)
    assert (ask.pool_id, ask.model) == ("@acme", model_digest("gpt-5"))
    assert ask.session == session_within(ask.session_id, "@acme")


def test_an_alias_that_leads_nowhere() -> None:
    world = World()
    result = world.post(json={"body": {"model": "closed"}})
    assert problem(result) == (404, "model_not_found", "model")
    assert world.asked == []
    # Its provider was removed from Redis just now.
    world = World(answers=[UnknownPool(())])
    result = world.post(json={"body": {"model": "fast"}})
    assert problem(result) == (404, "model_not_found", "model")


def test_an_alias_whose_provider_is_not_in_the_pool() -> None:
    world = World()
    headers = {"x-proxy-pool-id": "elsewhere"}
    result = world.post(json={"body": {"model": "fast"}, "headers": headers})
    assert problem(result) == (400, "model_not_in_pool", "model")
    assert world.asked == []


# Aliases with several targets -----------------------------------------------

SEVERAL = Catalogue(
    version="v1",
    resources=(
        made_resource("acme", provider_id="acme", pool_id="p"),
        made_resource("beta", provider_id="beta", pool_id="q"),
    ),
    aliases=(
        Alias(
            alias="fast",
            provider_id="acme",
            upstream_id="gpt-5",
            targets=(
                ModelTarget(provider_id="acme", upstream_id="gpt-5"),
                ModelTarget(provider_id="beta", upstream_id="gpt-b", priority=1),
                ModelTarget(provider_id="gone", upstream_id="gpt", priority=2),
            ),
        ),
    ),
)


def said(resource: str | None, reason: str, wait_ms: int = 0) -> Explanation:
    status = "ok" if resource else reason
    return Explanation(status, resource, reason, False, wait_ms, [])


ACME, BETA = said("acme", "session_affinity"), said("beta", "response_affinity")
PANIC, FULL = said("acme", "panic"), said(None, "no_capacity", 1500)


@pytest.mark.parametrize(
    ("answers", "resource", "model"),
    [
        pytest.param([ACME, BETA], "acme", "gpt-5", id="the first can serve"),
        pytest.param([FULL, BETA], "beta", "gpt-b", id="it cannot"),
        pytest.param([PANIC, BETA], "beta", "gpt-b", id="it cools down"),
        pytest.param([PANIC, FULL], "acme", "gpt-5", id="nor can the other"),
        pytest.param([FULL, FULL], None, "gpt-5", id="nobody can"),
    ],
)
def test_targets_are_shown_in_their_order(
    answers: list[Explanation], resource: str | None, model: str
) -> None:
    world = World(answers=list(answers), catalogue=SEVERAL)
    told = world.post(json={"body": {"model": "fast"}}).json
    assert (told["resource_id"], told["upstream_model"]) == (resource, model)
    shown = [(t["provider_id"], t["priority"], t["status"]) for t in told["targets"]]
    first, second = (answer.status for answer in answers)
    assert shown == [
        ("acme", 0, first),
        ("beta", 1, second),
        ("gone", 2, "no_resources"),
    ]
    assert told["targets"][0]["reason"] == answers[0].reason
    assert told["targets"][0]["retry_after_ms"] == (answers[0].wait_ms or None)
    assert [ask.pool_id for ask, _ in world.asked] == ["@acme", "@beta"]


def test_a_conversation_is_explained_where_it_lives() -> None:
    homes = {digest("resp_1"): Kept(Owner("beta", "acct-b"), 1)}
    world = World(answers=[BETA, FULL], catalogue=SEVERAL, homes=homes)
    body = {"model": "fast", "previous_response_id": "resp_1"}
    told = world.post(json={"body": body}).json
    assert (told["provider_id"], told["targets"][0]["provider_id"]) == ("beta", "beta")


def test_a_pool_leaves_targets_out() -> None:
    world = World(answers=[BETA], catalogue=SEVERAL)
    headers = {"x-proxy-pool-id": "q"}
    told = world.post(json={"body": {"model": "fast"}, "headers": headers}).json
    assert told["provider_id"] == "beta"
    statuses = [(t["provider_id"], t["status"]) for t in told["targets"]]
    assert statuses == [
        ("beta", "ok"),
        ("acme", "not_in_pool"),
        ("gone", "no_resources"),
    ]


# Errors ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnknownPool(("a", "b")), (400, "unknown_pool", "pool_id")),
        (UnknownPool(()), (400, "unknown_pool", "pool_id")),
        (NoResources(), (503, "no_resources_configured", None)),
        (NoCatalogue(), (503, "not_ready", None)),
        (RedisAway(), (503, "redis_unreachable", None)),
    ],
)
def test_what_cannot_be_explained(
    error: Exception, expected: tuple[int, str, str | None]
) -> None:
    assert problem(World(answers=[error]).post(json={})) == expected


def test_a_database_that_is_away() -> None:
    world = World(answers=[UnknownIds(0)], sql=StoreAway())
    result = world.post(json={"body": {"previous_response_id": "resp_1"}})
    assert problem(result)[:2] == (503, "database_unreachable")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"method":"BREW"}', "method"),
        (b'{"headers":{"a":1}}', "headers.a"),
        (b'{"path":"' + b"x" * 5000 + b'"}', "path"),
        (b'{"surprise":1}', "surprise"),
    ],
)
def test_nonsense_is_named(body: bytes, param: str | None) -> None:
    world = World()
    assert problem(world.post(body=body)) == (400, "invalid_request", param)
    assert world.asked == []


def test_a_body_that_is_too_large() -> None:
    world = World()
    body = b'"' + b"x" * LARGEST_BODY + b'"'
    assert problem(world.post(body=body)) == (413, "body_too_large", None)
    assert world.asked == []
