"""The account of a key, as the upstream names it. Pure."""

import re
from collections.abc import Iterable, Sequence

from libs.common.contracts.catalogue import Resource
from libs.common.headers import Header, find

# Removed from names, which are used in Redis keys, JSON and SQL.
_ODD = re.compile(r"[^A-Za-z0-9._:@-]")
LONGEST = 128


def account_named(headers: Sequence[Header]) -> str | None:
    """Organization and project in a response's headers. An id can be resolved only
    within its project, so both identify the account."""
    named = [find(headers, b"openai-organization"), find(headers, b"openai-project")]
    parts = [_ODD.sub("", part.decode("latin-1")) for part in named if part]
    return "/".join(part for part in parts if part)[:LONGEST] or None


def unnamed(resource: Resource) -> bool:
    """Whether the account of a key is unknown. Then it is an account of its own."""
    return resource.account_id == resource.id


def with_accounts(
    resources: Iterable[Resource], learned: dict[str, str]
) -> tuple[Resource, ...]:
    """Resources with the accounts that upstreams named, unless configured."""
    return tuple(
        resource.model_copy(update={"account_id": learned[resource.id]})
        if unnamed(resource) and learned.get(resource.id)
        else resource
        for resource in resources
    )
