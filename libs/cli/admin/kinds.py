"""What the admin API manages: prices, providers, model aliases, teams and proxy keys.
Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """`name` is the command, the section of a file and the path below /admin. People
    identify one by the field `label`, the API by the field `id`. `put`: PUT sets one as
    a whole; there is neither POST nor PATCH."""

    name: str
    one: str
    label: str
    id: str
    removal: str  # the command that removes one
    columns: Sequence[str]  # of the table
    paged: bool
    put: bool = False


PRICES = Kind(
    "prices",
    "price",
    label="model",
    id="model",
    removal="delete",
    columns=("model", "own", "prices"),
    paged=False,
    put=True,
)
PROVIDERS = Kind(
    "providers",
    "provider",
    label="id",
    id="id",
    removal="delete",
    columns=(
        "id",
        "provider_type",
        "base_url",
        "credential_ref",
        "pool_id",
        "weight",
        "enabled",
        "resources",
    ),
    paged=False,
)
MODELS = Kind(
    "models",
    "model alias",
    label="alias",
    id="alias",
    removal="delete",
    columns=("alias", "targets", "enabled"),
    paged=False,
)
TEAMS = Kind(
    "teams",
    "team",
    label="id",
    id="id",
    removal="delete",
    columns=("id", "name", "keys", "policy"),
    paged=True,
)
KEYS = Kind(
    "keys",
    "key",
    label="name",
    id="id",
    removal="revoke",
    columns=(
        "id",
        "name",
        "prefix",
        "team_id",
        "enabled",
        "expires_at",
        "last_used_at",
        "revoked_at",
    ),
    paged=True,
)
# The order in which a file is applied: models refer to providers, keys to teams. A
# model has its price before the first request that a new alias or key makes.
ORDER = (PRICES, PROVIDERS, MODELS, TEAMS, KEYS)


def is_revoked(row: Fields) -> bool:
    """Only keys can be; their rows stay."""
    return row.get("revoked_at") is not None


def is_managed(row: Fields) -> bool:
    """Is it neither revoked nor a price of PROXY_PRICES_FILE?"""
    return not is_revoked(row) and row.get("own", True)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the end of a message: the known name that looks like `name`."""
    found = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""
