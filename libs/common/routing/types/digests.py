"""Ids and names as they stand in Redis keys. Pure."""

import hashlib
from functools import lru_cache


def digest(value: str) -> str:
    """An id of a client or an upstream as 32 hex characters, for use in Redis keys."""
    made = _unused.copy()  # takes less time than a new one with its options
    try:
        made.update(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        made.update(value.encode("utf-8", "replace"))
    return made.hexdigest()


_unused = hashlib.blake2b(digest_size=16)


@lru_cache(maxsize=1024)
def model_digest(model: str | None) -> str:
    """The same of a model's name; empty without one. Cached: models are few."""
    return digest(model) if model else ""


def session_digest(session_id: str, tenant: str = "") -> str:
    """The same of a session id. Tenants that use the same session id have different
    digests. Cached: a session has many requests."""
    # One string as the key of the cache is faster than two.
    return _kept_digest(f"{tenant}\0{session_id}" if tenant else session_id)


_kept_digest = lru_cache(maxsize=4096)(digest)
