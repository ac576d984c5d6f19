"""Proxy keys: the format of a secret, and the principal it stands for.

Only a plain SHA-256 of a secret is stored. Slow, salted hashes protect passwords, which
can be guessed; a secret has 256 random bits."""

import hashlib
import secrets
from functools import cached_property

import msgspec

from libs.common.budgets import Budget
from libs.common.contracts.events import tenant_of

MARK = "rpx_"
SECRET_BYTES = 32
PREFIX_CHARS = len(MARK) + 6  # shown to identify a key; reveals 36 of the 256 bits


# Values of `reasoning.effort`, from the least.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What requests of a key or a team may ask for. An unset rule allows everything."""

    models: tuple[str, ...] = ()  # globs for the name asked for, or those sent upstream
    endpoints: tuple[str, ...] = ()  # below /v1, such as `responses`, with their paths
    max_reasoning_effort: str | None = None
    service_tiers: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    ip_allow: tuple[str, ...] = ()  # networks in CIDR notation


class Principal(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The holder of a proxy key and its permissions. A gateway may be older than the
    router that wrote the record; it ignores fields it does not know."""

    id: str
    pool_id: str | None = None  # pinned: every request uses this pool
    pools: tuple[str, ...] = ()  # allowed; empty allows all. The first is the default
    expires_at_ms: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    enabled: bool = True
    team_id: str | None = None  # keys of a team share upstream objects
    policies: tuple[Policy, ...] = ()  # its own and its team's; all must allow
    queue_weight: float = 1  # its share where requests wait for upstream keys
    name: str = ""
    prefix: str = ""  # of its secret, to tell keys apart
    budgets: tuple[Budget, ...] = ()  # its own and its team's; all must allow

    @cached_property
    def tenant(self) -> str:
        """The owner of upstream ids that this key's requests create."""
        return tenant_of(self.id, self.team_id)

    @cached_property
    def limited(self) -> bool:
        """Whether requests of this key must be counted."""
        return bool(self.budgets or self.requests_per_minute or self.tokens_per_minute)


def new_secret() -> str:
    """Generate a secret. It is shown once and never stored."""
    return MARK + secrets.token_urlsafe(SECRET_BYTES)


def secret_hash(secret: bytes) -> str:
    """The hash under which a secret is stored, in hexadecimal."""
    return hashlib.sha256(secret).hexdigest()
