"""What a dead letter is called, and the entry it was. Pure."""

import hashlib
import json
from collections.abc import Mapping

from libs.common.contracts.events import Outcome, Row

MOST_VERSIONS = 100


def content_id(fields: Mapping[bytes, bytes]) -> str:
    """The same content has the same id, also when it was sent twice."""
    digest = hashlib.sha256()
    for name, value in sorted(fields.items()):
        digest.update(b"%d:%s%d:%s" % (len(name), name, len(value), value))
    return digest.hexdigest()[:32]


def entry_of(letter: Row) -> dict[bytes, bytes] | None:
    """The fields that the stream held, version included: the id proves that they
    are those. None when the row does not hold all of them: it was cut, had fields
    of other names, or bodies."""
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


def tells_interrupted(letter: Row) -> bool:
    """Does the letter itself say that its request was interrupted?"""
    try:
        return bool(json.loads(letter["data"])["outcome"] == Outcome.INTERRUPTED)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
