"""Proxy keys in Redis: the table that the router keeps for the gateways."""

from collections.abc import Collection, Mapping

import msgspec
import structlog

from libs.common.proxy_keys import Principal
from libs.common.redis.client import Caller
from libs.common.redis.keys import DEFAULT, Keys

log = structlog.get_logger()


class KeyTable:
    """The key table in Redis: secret hash -> principal, and a version that changes with
    every write. Raises `RedisAway`, or `ResponseError` when Redis rejects a command."""

    def __init__(self, caller: Caller, keys: Keys = DEFAULT) -> None:
        self._caller = caller
        self._keys = keys

    async def version(self) -> str | None:
        """Return the version, or None if there is no table (Redis was emptied)."""
        version = await self._caller.call("GET", self._keys.proxy_keys_version())
        return None if version is None else str(version, "ascii")

    async def read(self) -> dict[str, Principal]:
        """Return the whole table. Read the version first: a change in between is then
        read twice instead of being missed."""
        found = await self._caller.call("HGETALL", self._keys.proxy_keys())
        # redis-py returns a dictionary; the shared connection returns a flat list.
        if not isinstance(found, dict):
            found = dict(zip(found[::2], found[1::2], strict=True))
        principals = ((str(k, "ascii"), _principal(v)) for k, v in found.items())
        return {name: found for name, found in principals if found is not None}

    async def change(
        self,
        seen: str | None,
        changed: Mapping[str, Principal],
        removed: Collection[str] = (),
    ) -> bool:
        """Put and remove entries if the table's version is still `seen`. Return False,
        and change nothing, if another router wrote first: this router's data may be
        stale. If Redis was emptied, `changed` must contain all keys."""
        pairs = [
            part
            for name, principal in changed.items()
            for part in (name, _encode(principal))
        ]
        version = await self._caller.call(
            "FCALL",
            self._keys.function("keys_v1"),
            1,
            self._keys.proxy_keys_version(),
            seen or "",
            len(removed),
            *removed,
            *pairs,
        )
        return bool(version)


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Principal)


def _principal(record: bytes) -> Principal | None:
    """Decode a record. A malformed one is skipped so that the other keys still work."""
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError as error:
        log.error(
            "skipped a malformed proxy key record",
            action="odd_proxy_key",
            cause=str(error),
        )
        return None
