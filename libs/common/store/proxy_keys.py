"""Proxy keys and their teams in SQL, with the same statements for both databases. Only
the hash of a secret is stored; it is returned for the key table in Redis only."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, overload

import msgspec

from libs.common.budgets import Budget, budget_of, new_terms, shown_terms, split_terms
from libs.common.contracts.events import RequestEvent, Row
from libs.common.proxy_keys import Policy, Principal
from libs.common.store.admin.audit_log import AuditedRows
from libs.common.store.admin.changes import version_of
from libs.common.store.interface import AFTER_EVERY_TIME, Cursor, Page
from libs.common.store.rows import iso, iso_ms, milliseconds

MOST_MEMBERS = 1000  # keys of a team that are listed


@dataclass(frozen=True, slots=True)
class NewKey:
    """The columns of a new key."""

    id: str
    name: str
    prefix: str
    secret_hash: str
    pool_id: str | None
    pools: tuple[str, ...]
    expires_at: datetime | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    team_id: str | None = None
    policy: Mapping[str, Any] | None = None
    queue_weight: float = 1.0
    budget: Mapping[str, Any] = field(default_factory=dict)


class ProxyKeyRows(AuditedRows):
    """Returns rows by SQL column name, without the hash. Methods raise `StoreAway`."""

    async def add(self, key: NewKey) -> Row:
        values = {name: _bound(getattr(key, name)) for name in key.__slots__}
        (row,) = await self._fetch("add_proxy_key", values)
        return _shown(row)

    async def page(self, limit: int, cursor: Cursor | None) -> Page:
        """Return a page of keys, newest first, including revoked keys."""
        values = {
            "before_at": cursor.at if cursor else AFTER_EVERY_TIME,
            "before_id": cursor.id if cursor else "",
            "rows": limit + 1,
        }
        rows = await self._fetch("proxy_keys", values)
        return Page.cut(list(map(_shown, rows)), limit)

    async def get(self, id_: str) -> Row | None:
        return _shown(await self._one("proxy_key", id_))

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None:
        """Set `fields`. Return the row, or None if the key is unknown or revoked."""
        encoded = _changed(fields)
        return _shown(await self._one("change_proxy_key", id_, fields=encoded))

    async def revoke(self, id_: str, at: datetime) -> Row | None:
        """Revoke a key permanently. Idempotent; return None if the key is unknown."""
        return _shown(await self._one("revoke_proxy_key", id_, revoked_at=iso(at)))

    async def defaults(self, team_id: str) -> Row:
        """The fields that a new key of a team has if its creation does not say."""
        team = await self._first("teams", {"after": "", "id": team_id, "rows": 1})
        found: Row = (team and team["key_defaults"]) or {}
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items()
        }

    async def records(self) -> dict[str, Principal]:
        """Return the principals of all keys that are not revoked, by secret hash."""
        rows = await self._fetch("proxy_key_records", {"id": None})
        return {row["secret_hash"]: _principal(row) for row in rows}

    async def record(self, id_: str) -> tuple[str, Principal | None] | None:
        """Return the secret hash and the principal of one key; the principal is None if
        the key is revoked."""
        row = await self._first("proxy_key_records", {"id": id_})
        if row is None:
            return None
        revoked = row["revoked_at"] is not None
        return row["secret_hash"], None if revoked else _principal(row)


class TeamRows(AuditedRows):
    """Teams of proxy keys. Methods raise `StoreAway`."""

    async def add(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        """Return None if there is a team with this id."""
        rest, terms = split_terms({"key_defaults": None, **fields})
        values = {name: _bound(value) for name, value in rest.items()}
        values |= {"budget": _bound(new_terms(terms)), "created_at": iso(at)}
        row = await self._first("add_team", values)
        return row and {**_shown(row), "keys": 0}

    async def page(self, limit: int, after: str) -> list[Row]:
        """Teams by id, after this one."""
        values = {"after": after, "id": None, "rows": limit}
        return [_shown(row) for row in await self._fetch("teams", values)]

    async def get(self, id_: str) -> Row | None:
        return _shown(await self._one("teams", id_, after="", rows=1))

    async def members(self, id_: str, since: datetime) -> list[Row]:
        """Keys of a team, newest first, with what each used since then. Further keys
        are left out, and revoked ones, of which only those that used something are
        listed, by id alone."""
        keys = await self._fetch("team_members", {"id": id_, "rows": MOST_MEMBERS})
        used = await self._fetch("team_usage", {"id": id_, "since": iso(since)})
        by_id = {row["id"]: row for row in used}
        listed = {row["id"]: row for row in keys}
        gone = {id_: {"id": id_} for id_ in by_id if id_ not in listed}
        return [{**row, **by_id.get(id_, {})} for id_, row in (listed | gone).items()]

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None:
        """Set `fields`. Return the row, or None if there is no such team."""
        row = await self._one("change_team", id_, fields=_changed(fields))
        return row and await self.get(id_)

    async def delete(self, id_: str) -> bool:
        """Return False if there is no such team, or it has keys."""
        return await self._one("delete_team", id_) is not None


def uses(requests: Iterable[RequestEvent]) -> list[tuple[str, str]]:
    """Return the time of last use, and the id, of each key in a batch of requests."""
    last: dict[str, int] = {}
    for request in requests:
        id_ = request.proxy_key_id
        if id_ is not None and request.created_at_ms >= last.get(id_, 0):
            last[id_] = request.created_at_ms
    return [(iso_ms(ms), id_) for id_, ms in sorted(last.items())]


def _bound(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return json.dumps(value) if isinstance(value, tuple | Mapping) else value


@overload
def _shown(row: Row) -> Row: ...


@overload
def _shown(row: None) -> None: ...


def _shown(row: Row | None) -> Row | None:
    """A key or a team, with the terms of its budget named as in the admin API."""
    if row is None:
        return None
    shown = {**row, "version": version_of(row)}
    return shown | shown_terms(shown.pop("budget"))


def _changed(fields: Mapping[str, Any]) -> str:
    rest, terms = split_terms(fields)
    return json.dumps({**rest, "budget": terms} if terms else rest, default=_bound)


def _budgets(row: Row) -> tuple[Budget, ...]:
    id_, team_id = row["id"], row["team_id"]
    found = [budget_of(f"key:{id_}", row["name"], row["budget"])]
    if row["team_budget"] is not None:
        team = row["team_name"] or team_id
        found.append(budget_of(f"team:{team_id}", team, row["team_budget"]))
    return tuple(budget for budget in found if budget is not None)


def _policies(row: Row) -> tuple[Policy, ...]:
    found = (row["policy"], row["team_policy"])
    return tuple(msgspec.convert(policy, Policy) for policy in found if policy)


def _principal(row: Row) -> Principal:
    expires = row["expires_at"]
    return Principal(
        id=row["id"],
        pool_id=row["pool_id"],
        pools=tuple(row["pools"]),
        expires_at_ms=expires and milliseconds(datetime.fromisoformat(expires)),
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        enabled=row["enabled"],
        team_id=row["team_id"],
        policies=_policies(row),
        queue_weight=row["queue_weight"],
        name=row["name"],
        prefix=row["prefix"],
        budgets=_budgets(row),
    )
