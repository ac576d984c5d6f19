"""Account names as upstreams report them, and the owners that are kept."""

from collections import OrderedDict

import pytest

from libs.common.contracts.catalogue import Resource
from libs.common.routing.accounts import (
    Kept,
    account_named,
    keep_owner,
    unnamed,
    with_accounts,
)
from libs.common.routing.types import Owner


def resource(number: int, account: str = "") -> Resource:
    return Resource(
        id=f"openai-{number}",
        name=f"openai-{number}",
        pool_id=None,
        account_id=account or f"openai-{number}",
        weight=1,
        base_url="http://upstream/v1",
        credential="env:X",
    )


@pytest.mark.parametrize(
    ("headers", "account"),
    [
        ({"openai-organization": "org-a", "openai-project": "proj_1"}, "org-a/proj_1"),
        ({"openai-organization": "org-a"}, "org-a"),
        ({"openai-project": "proj_1"}, "proj_1"),
        ({}, None),
        ({"openai-organization": ""}, None),
        ({"openai-organization": 'a"b|c\xe9/d'}, "abcd"),
        ({"openai-organization": "x" * 500}, "x" * 128),
    ],
)
def test_organisation_and_project_make_the_account(
    headers: dict[str, str], account: str | None
) -> None:
    pairs = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    assert account_named(pairs) == account


def test_the_configuration_has_the_last_word() -> None:
    resources = [resource(1), resource(2, "mine"), resource(3)]
    assert [unnamed(r) for r in resources] == [True, False, True]
    named = with_accounts(resources, {"openai-1": "org", "openai-2": "org"})
    assert [r.account_id for r in named] == ["org", "mine", "openai-3"]


@pytest.mark.parametrize("stays", [True, False])
def test_an_owner_may_stay_with_its_tenant(*, stays: bool) -> None:
    mine, moved, theirs = (
        Owner("a", "acct", "me"),
        Owner("b", "acct", "me"),
        Owner("b", "acct", "they"),
    )
    kept: Kept = OrderedDict()
    for owner in (mine, moved, theirs):
        keep_owner(kept, "i", owner, 1, stays=stays)
    assert kept == {"i": moved if stays else theirs}


def test_of_too_many_owners_the_oldest_goes() -> None:
    kept: Kept = OrderedDict()
    for name in ("a", "b", "a", "c"):
        keep_owner(kept, name, Owner("r", "acct"), 2, stays=True)
    assert list(kept) == ["a", "c"]
