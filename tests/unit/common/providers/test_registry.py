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
    targets_of,
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


def test_the_keys_of_an_azure_resource_share_its_account() -> None:
    keys = ("T", "U")
    url = "https://Name.openai.azure.com/openai/v1"
    azure = {"provider_type": "azure", "auth_type": "api_key", "base_url": url}
    made = resources_of(provider(sealed=keys, **azure), {})
    assert {r.account_id for r in made} == {"name.openai.azure.com"}
    assert {r.auth_type for r in made} == {"api_key"}
    named = resources_of(provider(sealed=keys, account_id="org", **azure), {})
    assert {r.account_id for r in named} == {"org"}
    plain = resources_of(provider(sealed=keys), {})
    assert {r.auth_type for r in plain} == {"bearer"}
    assert {r.account_id for r in plain} == {"acme-1", "acme-2"}


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
    row: dict[str, Any] = {"alias": "fast"}
    row |= {"provider_id": "acme", "upstream_id": "gpt"}
    row["targets"] = targets_of(row, None)
    rows = [{**row, "enabled": 1}, {**row, "alias": "slow", "enabled": 0}]
    assert [a.alias for a in registry_of((), rows).aliases] == ["fast"]


TARGET = {"provider_id": "acme", "upstream_id": "gpt", "weight": 1.0, "priority": 0}
SECOND = {"provider_id": "beta", "upstream_id": "gpt-b", "weight": 3.0, "priority": 1}


@pytest.mark.parametrize(
    ("stored", "targets"),
    [
        pytest.param(None, [TARGET], id="before there were several"),
        pytest.param([], [TARGET], id="none"),
        pytest.param([TARGET, SECOND], [TARGET, SECOND], id="several"),
        pytest.param(
            [{**TARGET, "weight": 2.0}], [{**TARGET, "weight": 2.0}], id="one"
        ),
        pytest.param([SECOND, TARGET], [TARGET], id="an older router changed the row"),
    ],
)
def test_targets_count_while_the_row_says_the_same(
    stored: Any, targets: list[dict[str, Any]]
) -> None:
    row: dict[str, Any] = {"alias": "fast", "enabled": 1}
    row |= {"provider_id": "acme", "upstream_id": "gpt"}
    row["targets"] = found = targets_of(row, stored)
    assert found == targets
    (alias,) = registry_of((), [row]).aliases
    several = targets if len(targets) > 1 else []
    assert [each.model_dump() for each in alias.targets] == several


def test_an_alias_leads_to_its_providers_pool() -> None:
    theirs = resources_of(provider(pool_id="p"), {})
    aliases = [
        Alias(alias=name, provider_id=id_, upstream_id="gpt")
        for name, id_ in (("fast", "acme"), ("lost", "gone"))
    ]
    found = alias_targets(
        Catalogue(version="v", resources=theirs, aliases=tuple(aliases))
    )
    (fast,), (lost,) = found["fast"], found["lost"]
    assert (fast.pool, fast.open, lost.open) == ("@acme", True, False)
    assert [fast.passes(pool) for pool in (None, "p", "q")] == [True, True, False]


def test_a_resource_is_in_its_pool_and_its_providers() -> None:
    (resource,) = resources_of(provider(pool_id="p"), {})
    pools = "p", "q", provider_pool("acme"), provider_pool("p")
    assert [in_pool(resource, pool) for pool in pools] == [True, False, True, False]


def test_a_session_has_another_name_at_each_provider() -> None:
    assert session_within("s", "@a") != session_within("s", "@b")
    assert session_within(None, "@a") == ""
