"""Ids of dead letters, and the stream entries they were made from. Pure."""

import hashlib
import json
from collections.abc import Mapping

from libs.common.contracts.events import Outcome, Row

MOST_VERSIONS = 100


def content_id(fields: Mapping[bytes, bytes]) -> str:
    """Hash the fields of an entry, so that a replayed entry has the same id."""
    digest = hashlib.sha256()
    for name, value in sorted(fields.items()):
        digest.update(b"%d:%s%d:%s" % (len(name), name, len(value), value))
    return digest.hexdigest()[:32]


def entry_of(letter: Row) -> dict[bytes, bytes] | None:
    """Rebuild the fields of the entry, including its version, which the id confirms.
    Return None if the row does not contain all of them: its data was truncated, or the
    entry had other fields or bodies."""
    if letter["kind"] is None or letter["event_id"] is None:
        return None
    fields = {
        b"kind": letter["kind"].encode(),
        b"id": letter["event_id"].encode(),
        b"data": letter["data"].encode(),
    }
    for version in range(MOST_VERSIONS):
        entry = {**fields, b"v": b"%d" % version}
        if content_id(entry) == letter["id"]:
            return entry
    return None


def is_interrupted(letter: Row) -> bool:
    """Whether the outcome in the dead letter is `interrupted`."""
    try:
        return bool(json.loads(letter["data"])["outcome"] == Outcome.INTERRUPTED)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
