"""Why a resource was passed over, as a code and a time, from the text that decisions
have. Pure."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from libs.common.contracts.events import Candidate, Row

# By the beginning of texts of services/router/functions/telemetry.lua and
# services/gateway/routing/offline.py, the longer ones first.
_CODES = {
    "cooling down for this model": "model_cooling_down",
    "cooling down": "cooling_down",
    "its account is at its limit": "account_limit",
    "key refused by the upstream": "key_refused",
    "another account": "another_account",
    "already tried": "already_tried",
    "has its most requests in flight": "busy",
}
OTHER = "other"  # of another version
CODES = (*_CODES.values(), OTHER)
_NOTHING = {
    field.name: None
    for field in msgspec.structs.fields(Candidate)
    if field.default is None
}
_UNTIL = re.compile(r" until (\d{1,15})$")


def why(refused: str) -> dict[str, Any]:
    """The code of a text, and when it ends in Unix ms, if it says so."""
    codes = (code for begins, code in _CODES.items() if refused.startswith(begins))
    until = _UNTIL.search(refused)
    return {
        "code": next(codes, OTHER),
        "until_ms": int(until[1]) if until else None,
    }


def explained(decisions: Iterable[Row]) -> list[Row]:
    """Rows of decisions whose candidates say why they were passed over."""
    return [{**row, "candidates": with_why(row["candidates"])} for row in decisions]


def with_why(candidates: Iterable[Row]) -> list[Row]:
    """Candidates with all members, of which databases omit those that are null."""
    whole = ({**_NOTHING, **each} for each in candidates)
    return [
        {**each, "why": why(each["refused"])} if each["refused"] else each
        for each in whole
    ]
