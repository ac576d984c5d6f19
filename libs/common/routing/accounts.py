"""The account of a key, as the upstream names it, and whose state an id names. Pure."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from libs.common.contracts.catalogue import Resource
from libs.common.headers import Header, find
from libs.common.routing.types import Owner

Kept = OrderedDict[str, Owner | None]
"""Owners by digest, oldest first. None: SQL does not know the id."""

_move_to_end: Final = OrderedDict.move_to_end  # found sooner than a method by its name
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


def keep_owner(
    kept: Kept, name: str, owner: Owner | None, most: int, *, stays: bool
) -> None:
    """Set an owner among `most`. `stays`: it remains with the tenant that had it."""
    before = kept.get(name)
    if before is not None:
        _move_to_end(kept, name)
        if before == owner:
            return
        if stays and owner is not None and before.tenant != owner.tenant:
            return
    kept[name] = owner
    if len(kept) > most:
        kept.popitem(last=False)
