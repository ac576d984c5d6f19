"""The targets of a model alias, and the pools that a request for it may name."""

import pytest

from libs.common.contracts.catalogue import Alias, Catalogue
from libs.common.routing.aliases import (
    alias_targets,
    in_pool,
    provider_pool,
    session_within,
)
from libs.common.routing.types import session_digest
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
    alias = alias_targets(CATALOGUE)["fast"]
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
    assert alias_targets(CATALOGUE)["fast"].passes(pool) is passes


def test_a_request_that_names_no_pool_may_go_to_any() -> None:
    pooled = made_resource("acme", pool_id="cheap", provider_id="acme")
    catalogue = Catalogue(version="v1", resources=(pooled,), aliases=(ALIAS,))
    assert alias_targets(catalogue)["fast"].passes(None)


def test_an_alias_without_a_resource_is_closed() -> None:
    found = alias_targets(CATALOGUE)
    assert (found["fast"].open, found["gone"].open) == (True, False)
    assert not found["gone"].passes("cheap")


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
