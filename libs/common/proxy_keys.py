"""Proxy keys: what a secret looks like, what is known of its holder, and the table
of them that the router keeps in Redis for the gateways.

A secret is 256 random bits, so a plain SHA-256 of it is all that is kept anywhere:
slow, salted hashes are for what people choose, which can be guessed. Nobody guesses
one of 2**256, and there are no two equal ones that a salt would tell apart."""

import hashlib
import secrets
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from libs.common.contracts.events import tenant_of
from libs.common.redis import keys
from libs.common.redis.client import Caller, Clock, servers_clock

log = structlog.get_logger()

MARK = "rpx_"
SECRET_BYTES = 32
PREFIX_CHARS = len(MARK) + 6  # shown to tell keys apart; 36 of the 256 bits


class Principal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a proxy key stands for, and what it may do. Read also by older gateways
    than the router that wrote it: what they do not know they pass over."""

    id: str
    pool_id: str | None = None  # pinned: every request goes there
    pools: tuple[str, ...] = ()  # it may use; none: all. The first is the default
    expires_at_ms: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    enabled: bool = True
    team_id: str | None = None  # its keys share what they made

    @property
    def tenant(self) -> str:
        """To whom ids that this key's requests mint belong."""
        return tenant_of(self.id, self.team_id)

    @property
    def limited(self) -> bool:
        """Do its requests have to be counted?"""
        return bool(self.requests_per_minute or self.tokens_per_minute)


def new_secret() -> str:
    """A secret, to be shown once."""
    return MARK + secrets.token_urlsafe(SECRET_BYTES)


def secret_hash(secret: bytes) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret).hexdigest()


@dataclass(frozen=True, slots=True)
class Reached:
    """A limit of a key (`requests`, `tokens`) that is reached for now."""

    which: str
    wait_ms: int


class KeyTable:
    """The table in Redis: hash of a secret -> principal, and a version that changes
    with it. Raises `RedisAway`, or `ResponseError` from a Redis that refuses."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def version(self) -> str | None:
        """None: there is no table, as in an emptied Redis."""
        version = await self._caller.call("GET", keys.proxy_keys_version())
        return None if version is None else str(version, "ascii")

    async def read(self) -> dict[str, Principal]:
        """All of it. Ask for the version before: a change in between is then read
        twice rather than never."""
        found = await self._caller.call("HGETALL", keys.proxy_keys())
        # redis-py makes a dictionary of it, the shared connection does not.
        if not isinstance(found, dict):
            found = dict(zip(found[::2], found[1::2], strict=True))
        principals = ((str(k, "ascii"), _principal(v)) for k, v in found.items())
        return {name: found for name, found in principals if found is not None}

    async def change(
        self,
        seen: str | None,
        changed: Mapping[str, Principal],
        gone: Collection[str] = (),
    ) -> bool:
        """Put and remove entries, if the table's version still is `seen`. False,
        and nothing done, when another router was faster: what this one read may be
        older than what is there. On an emptied Redis `changed` must be all keys."""
        pairs = [
            part
            for name, principal in changed.items()
            for part in (name, _encode(principal))
        ]
        version = await self._caller.call(
            "FCALL",
            "rpx_keys_v1",
            1,
            keys.proxy_keys_version(),
            seen or "",
            len(gone),
            *gone,
            *pairs,
        )
        return bool(version)


class KeyLimits:
    """What keys may use in a minute, counted in Redis over all gateways. Raises
    `RedisAway`, or `ResponseError` from a Redis that refuses."""

    def __init__(self, caller: Caller, clock: Clock = servers_clock) -> None:
        self._caller = caller
        self._clock = clock

    async def count(self, principal: Principal) -> Reached | None:
        """Count a request; or the limit that is reached, and nothing is counted."""
        reply = await self._caller.call(
            "FCALL",
            "rpx_limits_v1",
            1,
            keys.spent(principal.id),
            principal.id,
            principal.requests_per_minute or "",
            principal.tokens_per_minute or "",
            self._clock(),
        )
        return Reached(reply[0].decode(), int(reply[1])) if reply else None

    def spend(self, key_id: str, tokens: int) -> Awaitable[Any]:
        """Count an answer's tokens."""
        return self._caller.call(
            "FCALL",
            "rpx_spend_v1",
            1,
            keys.spent(key_id),
            key_id,
            tokens,
            self._clock(),
        )


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Principal)


def _principal(record: bytes) -> Principal | None:
    """One that cannot be read is no key, and does not take the others with it."""
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError as error:
        log.error("odd proxy key", action="odd_proxy_key", cause=str(error))
        return None
