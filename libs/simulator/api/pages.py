"""Paginates lists by `after`, `limit` and `order`. Pure."""

from collections.abc import Mapping

from libs.simulator.wire import Json

_LIMIT = 20
_MAX_LIMIT = 100


def page(items: list[Json], query: Mapping[str, str]) -> Json:
    """One page of items. The input is oldest first; the default order is newest
    first."""
    ordered = items if query.get("order") == "asc" else items[::-1]
    ids = [item["id"] for item in ordered]
    after = query.get("after")
    start = ids.index(after) + 1 if after in ids else 0
    limit = _limit(query.get("limit", ""))
    shown = ordered[start : start + limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + limit < len(ordered),
    }


def _limit(text: str) -> int:
    return min(max(int(text), 1), _MAX_LIMIT) if text.isdecimal() else _LIMIT
