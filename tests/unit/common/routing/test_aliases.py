"""The targets of a model alias, and the pools that a request for it may name."""

from collections import Counter
from collections.abc import Sequence

import pytest

from libs.common.contracts.catalogue import Alias, Catalogue, ModelTarget
from libs.common.routing.aliases import (
    AliasTarget,
    alias_targets,
    at_first,
    home_of,
    in_order,
    in_pool,
    provider_pool,
    session_within,
)
from libs.common.routing.types import Kept, Owner, session_digest
from tests.support.values.catalogues import made_resource

ALIAS = Alias(alias="fast", provider_id="acme", upstream_id="gpt-5")
CATALOGUE = Catalogue(
    version="v1",
    resources=(
        made_resource("openai-1", pool_id="main"),
        made_resource("acme-1", pool_id="cheap", provider_id="acme"),
        made_resource("acme-2", pool_id=None, provider_id="acme"),
    ),
    aliases=(ALIAS, Alias(alias="gone", provider_id="nobody", upstream_id="x")),
)


def test_an_alias_leads_to_all_resources_of_its_provider() -> None:
    (alias,) = alias_targets(CATALOGUE)["fast"]
    assert (alias.provider_id, alias.upstream_id) == ("acme", "gpt-5")
    assert alias.pool == provider_pool("acme") == "@acme"
    reached = [r.id for r in CATALOGUE.resources if in_pool(r, alias.pool)]
    assert reached == ["acme-1", "acme-2"]


@pytest.mark.parametrize(
    ("pool", "passes"), [(None, True), ("cheap", True), ("main", False), ("", False)]
)
def test_a_request_may_name_a_pool_that_the_provider_is_in(
    pool: str | None, passes: bool
) -> None:
    assert alias_targets(CATALOGUE)["fast"][0].passes(pool) is passes


def test_a_request_that_names_no_pool_may_go_to_any() -> None:
    pooled = made_resource("acme", pool_id="cheap", provider_id="acme")
    catalogue = Catalogue(version="v1", resources=(pooled,), aliases=(ALIAS,))
    assert alias_targets(catalogue)["fast"][0].passes(None)


def test_an_alias_without_a_resource_is_closed() -> None:
    found = alias_targets(CATALOGUE)
    (fast,), (gone,) = found["fast"], found["gone"]
    assert (fast.open, gone.open) == (True, False)
    assert not gone.passes("cheap")


@pytest.mark.parametrize(
    ("pool", "ids"),
    [("main", ["openai-1"]), ("cheap", ["acme-1"]), ("@openai", []), ("acme", [])],
)
def test_pools_of_operators_and_of_providers_are_apart(
    pool: str, ids: list[str]
) -> None:
    assert [r.id for r in CATALOGUE.resources if in_pool(r, pool)] == ids


def test_a_session_has_a_home_at_each_provider() -> None:
    digests = {session_within("s", pool) for pool in ("@acme", "@other")}
    assert len(digests) == 2
    assert session_digest("s") not in digests
    assert session_within("s", "@acme") == session_within("s", "@acme")
    assert session_within(None, "@acme") == session_within("", "@acme") == ""


# Several targets ------------------------------------------------------------------


def target(provider: str, weight: float = 1, priority: int = 0) -> AliasTarget:
    """With the resources `PROVIDER-1` and `-2`, both of an account `of-PROVIDER`."""
    ids = frozenset({f"{provider}-1", f"{provider}-2"})
    pool, accounts = provider_pool(provider), frozenset({f"of-{provider}"})
    pools, model = frozenset({None}), f"gpt-{provider}"
    return AliasTarget(
        "fast", provider, model, pool, pools, weight, priority, ids, accounts
    )


A, B, C = target("a", 3), target("b", 1), target("c", 1, 1)


def names(targets: Sequence[AliasTarget]) -> str:
    return "".join(each.provider_id for each in targets)


def test_an_alias_may_have_several_targets() -> None:
    alias = Alias(
        alias="fast",
        provider_id="acme",
        upstream_id="gpt-5",
        targets=(
            ModelTarget(provider_id="acme", upstream_id="gpt-5", weight=2),
            ModelTarget(provider_id="nobody", upstream_id="x", priority=1),
        ),
    )
    catalogue = CATALOGUE.model_copy(update={"aliases": (alias,)})
    first, second = alias_targets(catalogue)["fast"]
    assert (first.weight, first.priority, second.priority) == (2, 0, 1)
    assert first.resource_ids == {"acme-1", "acme-2"}
    assert (first.open, second.open, second.resource_ids) == (True, False, frozenset())


def test_the_next_priority_comes_after_all_of_the_one_before() -> None:
    orders = {names(in_order((C, B, A), f"s{n}")) for n in range(50)}
    assert orders == {"abc", "bac"}


def test_the_first_of_a_priority_is_drawn_by_weight() -> None:
    first = Counter(in_order((A, B, C), f"s{n}")[0].provider_id for n in range(4000))
    assert abs(first["a"] / 4000 - 0.75) < 0.03  # four standard deviations
    assert first["c"] == 0


def test_an_order_depends_on_its_seed_alone() -> None:
    for n in range(50):
        assert in_order((A, B, C), f"s{n}") == in_order((C, B, A), f"s{n}")


def test_a_new_target_takes_its_share_and_moves_nothing_else() -> None:
    new = target("d", 2)
    for n in range(200):
        before, after = in_order((A, B), f"s{n}"), in_order((A, B, new), f"s{n}")
        assert tuple(each for each in after if each is not new) == before


def kept(resource: str, account: str = "", left_ms: int = 0) -> Kept:
    return Kept(Owner(resource, account), left_ms)


@pytest.mark.parametrize(
    ("ids", "sessions", "home"),
    [
        pytest.param([], [], None, id="nothing is known"),
        pytest.param([Kept()], [Kept(), Kept(), Kept()], None, id="nor found"),
        pytest.param([kept("c-1")], [], "c", id="an id"),
        pytest.param([kept("c-9", "of-c")], [], "c", id="of a key that is gone"),
        pytest.param([kept("x-1", "of-x")], [], None, id="of another provider"),
        pytest.param([Kept(), kept("b-1"), kept("a-1")], [], "b", id="the first id"),
        pytest.param(
            [kept("b-1")], [kept("a-1", left_ms=9), Kept(), Kept()], "b",
            id="an id before a session",
        ),
        pytest.param(
            [], [kept("a-1", left_ms=5), kept("b-2", left_ms=6), Kept()], "b",
            id="where the session was last",
        ),
        pytest.param(
            [], [kept("b-1", left_ms=9), Kept(), Kept()], None,
            id="what SQL said of the session elsewhere",
        ),
    ],
)  # fmt: skip
def test_state_is_where_it_was_minted(
    ids: list[Kept], sessions: list[Kept], home: str | None
) -> None:
    assert home_of((A, B, C), ids, sessions) == home


def test_the_others_keep_their_order() -> None:
    assert names(at_first((A, B, C), "c")) == "cab"
    assert names(at_first((A, B, C), None)) == "abc"
