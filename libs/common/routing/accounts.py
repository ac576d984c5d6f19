"""Which account an upstream says a key is of. Pure."""

import re
from collections.abc import Iterable, Sequence

from libs.common.contracts.catalogue import Resource
from libs.common.headers import Header, find

# It travels in keys, JSON and SQL; what is no name there is none.
_ODD = re.compile(r"[^A-Za-z0-9._:@-]")
LONGEST = 128


def account_named(headers: Sequence[Header]) -> str | None:
    """Organisation and project as the answer names them. Ids are looked up within
    the project (responses-api.md section 9), so both make the account."""
    named = [find(headers, b"openai-organization"), find(headers, b"openai-project")]
    parts = [_ODD.sub("", part.decode("latin-1")) for part in named if part]
    return "/".join(part for part in parts if part)[:LONGEST] or None


def unnamed(resource: Resource) -> bool:
    """Did nobody say yet whose key this is? It counts as an account of its own."""
    return resource.account_id == resource.id


def with_accounts(
    resources: Iterable[Resource], learned: dict[str, str]
) -> tuple[Resource, ...]:
    """What upstreams told, where the configuration says nothing."""
    return tuple(
        resource.model_copy(update={"account_id": learned[resource.id]})
        if unnamed(resource) and learned.get(resource.id)
        else resource
        for resource in resources
    )
