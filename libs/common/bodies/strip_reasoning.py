"""A request without the encrypted reasoning of an account that is gone, so that
another account can read it. Pure."""

import json
from typing import Any

# What only the account that made it can look up, or read.
_BY_ID_ONLY = frozenset({"item_reference"})


def without_reasoning(body: bytes) -> bytes | None:
    """`body` with its whole history but for foreign reasoning and foreign item ids;
    None when that would lose more than reasoning: a chained request does not carry
    its history, and a compaction item holds it in encrypted form alone."""
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
    return json.dumps(fields, separators=(",", ":")).encode()


def _portable(item: Any) -> Any:
    """An item for any account; {} for one to leave out, None for one that cannot
    be done without."""
    if not isinstance(item, dict):
        return item
    if item.get("type") == "reasoning":
        return {}
    if item.get("type") in _BY_ID_ONLY or item.get("encrypted_content"):
        return None
    return {name: value for name, value in item.items() if name != "id"}
