"""Proxy keys: the format of a secret, and the principal it stands for.

Only a plain SHA-256 of a secret is stored. Slow, salted hashes protect passwords, which
can be guessed; a secret has 256 random bits."""

import hashlib
import secrets
from dataclasses import dataclass

import msgspec

from libs.common.contracts.events import tenant_of

MARK = "rpx_"
SECRET_BYTES = 32
PREFIX_CHARS = len(MARK) + 6  # shown to identify a key; reveals 36 of the 256 bits


class Principal(msgspec.Struct, frozen=True, omit_defaults=True):
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

    @property
    def tenant(self) -> str:
        """The owner of upstream ids that this key's requests create."""
        return tenant_of(self.id, self.team_id)

    @property
    def limited(self) -> bool:
        """Whether requests of this key must be counted."""
        return bool(self.requests_per_minute or self.tokens_per_minute)


def new_secret() -> str:
    """Generate a secret. It is shown once and never stored."""
    return MARK + secrets.token_urlsafe(SECRET_BYTES)


def secret_hash(secret: bytes) -> str:
    """The hash under which a secret is stored, in hexadecimal."""
    return hashlib.sha256(secret).hexdigest()


@dataclass(frozen=True, slots=True)
class Reached:
    """A limit of a key (`requests` or `tokens`) that is currently exhausted."""

    which: str
    wait_ms: int
