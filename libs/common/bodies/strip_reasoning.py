"""Removes the encrypted reasoning of an unavailable account from a request, so that
another account can serve it. Pure."""

import json
from typing import Any

# Names state of the backend that gave it (docs/upstream-api.md, Turn state).
TURN_STATE = "x-codex-turn-state"
# Items that only the account that created them can look up.
_BY_ID_ONLY = frozenset({"item_reference"})


def without_reasoning(body: bytes) -> bytes | None:
    """Return `body` without encrypted reasoning, item ids and turn state. Return None
    if that would lose more than reasoning: a chained request does not carry its
    history, and a compaction item holds it in encrypted form only."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("input"), list):
        return None
    if fields.get("previous_response_id") or fields.get("conversation"):
        return None
    items = [_portable(item) for item in fields["input"]]
    if None in items:
        return None
    fields["input"] = [item for item in items if item != {}]
    metadata = fields.get("client_metadata")
    if isinstance(metadata, dict):
        metadata.pop(TURN_STATE, None)
    return json.dumps(fields, separators=(",", ":")).encode()


def _portable(item: Any) -> Any:
    """Return the item in a form that any account accepts, {} for an item to drop, or
    None for one that can neither be converted nor dropped."""
    if not isinstance(item, dict):
        return item
    if item.get("type") == "reasoning":
        return {}
    if item.get("type") in _BY_ID_ONLY or item.get("encrypted_content"):
        return None
    return {name: value for name, value in item.items() if name != "id"}
