"""Ids and names as they stand in Redis keys. Pure."""

import hashlib
from typing import Final


def digest(value: str) -> str:
    """An id of a client or an upstream as 32 hex characters, for use in Redis keys."""
    made = _copy()  # takes less time than a new one with its options
    try:
        _update(made, value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        _update(made, value.encode("utf-8", "replace"))
    return _hexdigest(made)


# Methods found once: a look-up by name costs as much as the call.
_copy: Final = hashlib.blake2b(digest_size=16).copy
_update: Final = hashlib.blake2b.update
_hexdigest: Final = hashlib.blake2b.hexdigest


_MOST_MODELS: Final = 1024
_MOST_SESSIONS: Final = 4096
# Plain dictionaries: `lru_cache` takes four times as long to find something.
_models: Final[dict[str, str]] = {}
_sessions: Final[dict[str, str]] = {}


def model_digest(model: str | None) -> str:
    """The same of a model's name; empty without one. Kept: models are few."""
    return _kept(_models, model, _MOST_MODELS) if model else ""


def session_digest(session_id: str, tenant: str = "") -> str:
    """The same of a session id. Tenants that use the same session id have different
    digests. Kept: a session has many requests."""
    # One string as the key is faster than two.
    named = f"{tenant}\0{session_id}" if tenant else session_id
    return _kept(_sessions, named, _MOST_SESSIONS)


def _kept(digests: dict[str, str], value: str, most: int) -> str:
    found = digests.get(value)
    if found is None:
        if len(digests) >= most:
            digests.clear()
        found = digests[value] = digest(value)
    return found
