"""Account names as upstreams report them."""

import pytest

from libs.common.contracts.catalogue import Resource
from libs.common.routing.accounts import account_named, unnamed, with_accounts


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
