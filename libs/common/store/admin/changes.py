"""The statements that the admin API changes SQL with, and the rows of `audit_log` that
they leave. Pure: a store runs a statement, and adds its row in the same transaction.

A statement of the admin API that is not listed here leaves no row."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from libs.common.contracts.events import Row
from libs.common.store.interface import Actor, ChangedMeanwhile
from libs.common.store.rows import iso

MASK = "***"
_SECRET = ("_hash", "_sealed", "_secret")
# Identify the object, or change without a change by an operator.
_IGNORED = frozenset(
    {"id", "alias", "keys", "created_at", "updated_at", "last_used_at"}
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a statement does to an object. `reads`: the statement that returns the row
    before the change; `filters`: its values other than `key`. `key`: the value of the
    statement that identifies the object."""

    object_type: str
    action: str  # create, change, revoke, delete
    reads: str | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    key: str = "id"
    removes: bool = False

    def reading(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the statement `reads`."""
        return {**self.filters, self.key: values[self.key]}


_ONE_TEAM = {"after": "", "rows": 1}
CHANGES: Mapping[str, Change] = {
    "add_proxy_key": Change("proxy_key", "create"),
    "change_proxy_key": Change("proxy_key", "change", "proxy_key"),
    "revoke_proxy_key": Change("proxy_key", "revoke", "proxy_key"),
    "add_team": Change("team", "create"),
    "change_team": Change("team", "change", "teams", _ONE_TEAM),
    "delete_team": Change("team", "delete", "teams", _ONE_TEAM, removes=True),
    "add_provider": Change("provider", "create"),
    "change_provider": Change("provider", "change", "providers"),
    "delete_provider": Change("provider", "delete", "providers", removes=True),
    "add_model": Change("model", "create", key="alias"),
    "change_model": Change("model", "change", "models"),
    "delete_model": Change("model", "delete", "models", removes=True),
    "put_own_prices": Change("price", "change", "own_prices"),
    "delete_own_prices": Change("price", "delete", "own_prices", removes=True),
    "add_named_token": Change("admin_token", "create"),
    "delete_named_token": Change("admin_token", "revoke", "named_token", removes=True),
    "put_admin_token": Change("admin_token", "change", "admin_token"),
}


def version_of(row: Row) -> str:
    """Differs from that of the row after any change that the audit log would show."""
    plain = {
        # SQLite returns 1.0 as 1 from an INSERT.
        name: float(value) if isinstance(value, int | float) else value
        for name, value in _plain(row).items()
    }
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def require_expected(before: Sequence[Row], by: Actor) -> None:
    """Raises `ChangedMeanwhile` if the row is not the one that was seen."""
    if by.expects is not None and before and version_of(before[0]) != by.expects:
        raise ChangedMeanwhile


def entry(
    name: str,
    values: Mapping[str, Any],
    by: Actor,
    rows: tuple[Sequence[Row], Sequence[Row]],
    made: tuple[str, datetime],
) -> Row | None:
    """The row of `audit_log` for a statement, or None if it changed nothing. `rows`:
    the object before the change, and what the statement returned; `made`: the id and
    the time of the new row."""
    change = CHANGES[name]
    before, after = rows
    if not after:
        return None
    old = _plain(before[0]) if before else {}
    new = {} if change.removes else _plain(after[0])
    differences = _differences(old, new, old if change.removes else new)
    if not differences:
        return None
    id_, at = made
    return {
        "id": id_,
        "created_at": iso(at),
        "actor": by.name,
        "address": by.address,
        "peer": by.peer,
        "action": change.action,
        "object_type": change.object_type,
        "object_id": str(values[change.key]),
        "changes": json.dumps(differences),
    }


def _plain(row: Row) -> Row:
    """What an operator changes."""
    shown = {name: value for name, value in row.items() if name not in _IGNORED}
    if shown.get("budget") == {}:
        shown["budget"] = None  # there is none
    return shown


def _differences(old: Row, new: Row, names: Row) -> Row:
    return {
        name: {
            "before": _masked(name, old.get(name)),
            "after": _masked(name, new.get(name)),
        }
        for name in names
        if old.get(name) != new.get(name)
    }


def _masked(name: str, value: Any) -> Any:
    secret = value is not None and name.endswith(_SECRET)
    return MASK if secret else value
