"""The catalogue that results from registered providers."""

from typing import Any

import pytest

from libs.common.contracts.catalogue import Alias, Catalogue
from libs.common.providers.registry import (
    Provider,
    Registry,
    joined,
    published_part,
    registry_of,
    resources_of,
)
from libs.common.routing.aliases import (
    alias_targets,
    in_pool,
    provider_pool,
    session_within,
)
from libs.common.settings.resources import resources_from_environment

URL = "http://127.0.0.1:1/v1"


def provider(**fields: Any) -> Provider:
    given: dict[str, Any] = {
        "id": "acme",
        "name": "Acme",
        "base_url": URL,
        "sealed": (),
        "credential_ref": "env:ACME",
        "pool_id": None,
        "account_id": None,
        "weight": 1.0,
        "enabled": True,
    }
    return Provider(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, {"acme": "env:ACME"}, id="a variable not set here"),
        pytest.param(
            {"credential_ref": "env:LIST"},
            {"acme-1": "env:LIST#1", "acme-2": "env:LIST#2"},
            id="a variable with two keys",
        ),
        pytest.param(
            {"credential_ref": "env:LIST#2"}, {"acme": "env:LIST#2"}, id="one of them"
        ),
        pytest.param({"sealed": ("T",)}, {"acme": "sealed:T"}, id="sealed"),
        pytest.param(
            {"sealed": ("T", "U")},
            {"acme-1": "sealed:T", "acme-2": "sealed:U"},
            id="two sealed",
        ),
        pytest.param({"enabled": False}, {}, id="disabled"),
        pytest.param({"credential_ref": None}, {}, id="without a key"),
        pytest.param({"credential_ref": "sealed:T"}, {}, id="an odd reference"),
    ],
)
def test_resources_of_a_provider(
    fields: dict[str, Any], expected: dict[str, str]
) -> None:
    made = resources_of(provider(**fields), {"LIST": "sk-a,sk-b"})
    assert {resource.id: resource.credential for resource in made} == expected
    assert {resource.provider_id for resource in made} <= {"acme"}


def test_an_account_is_its_own_until_somebody_says() -> None:
    keys = ("T", "U")
    unnamed = resources_of(provider(sealed=keys), {})
    named = resources_of(provider(sealed=keys, account_id="org"), {})
    assert [r.account_id for r in unnamed] == ["acme-1", "acme-2"]
    assert [r.account_id for r in named] == ["org", "org"]


def test_of_two_with_one_id_the_first_keeps_it() -> None:
    ours = resources_from_environment({"OPENAI_API_KEY": "sk-o"}, URL)
    registry = Registry((provider(id="openai-1"), provider(), provider()))
    resources, twice = joined(ours, registry, {})
    assert [r.id for r in resources] == ["openai-1", "acme"]
    assert resources[0].credential == "env:OPENAI_API_KEY"
    assert twice == ("openai-1", "acme")


def test_what_was_published_tells_its_registered_part() -> None:
    ours = resources_from_environment({"OPENAI_API_KEY": "sk-o"}, URL)
    theirs = resources_of(provider(), {})
    alias = Alias(alias="fast", provider_id="acme", upstream_id="gpt")
    catalogue = Catalogue(version="v", resources=(*ours, *theirs), aliases=(alias,))
    assert published_part(catalogue) == (theirs, (alias,))


def test_disabled_aliases_are_none() -> None:
    row = {"alias": "fast", "provider_id": "acme", "upstream_id": "gpt"}
    rows = [{**row, "enabled": 1}, {**row, "alias": "slow", "enabled": 0}]
    assert [a.alias for a in registry_of((), rows).aliases] == ["fast"]


def test_an_alias_leads_to_its_providers_pool() -> None:
    theirs = resources_of(provider(pool_id="p"), {})
    aliases = [
        Alias(alias=name, provider_id=id_, upstream_id="gpt")
        for name, id_ in (("fast", "acme"), ("lost", "gone"))
    ]
    found = alias_targets(
        Catalogue(version="v", resources=theirs, aliases=tuple(aliases))
    )
    fast, lost = found["fast"], found["lost"]
    assert (fast.pool, fast.open, lost.open) == ("@acme", True, False)
    assert [fast.passes(pool) for pool in (None, "p", "q")] == [True, True, False]


def test_a_resource_is_in_its_pool_and_its_providers() -> None:
    (resource,) = resources_of(provider(pool_id="p"), {})
    pools = "p", "q", provider_pool("acme"), provider_pool("p")
    assert [in_pool(resource, pool) for pool in pools] == [True, False, True, False]


def test_a_session_has_another_name_at_each_provider() -> None:
    assert session_within("s", "@a") != session_within("s", "@b")
    assert session_within(None, "@a") == ""
