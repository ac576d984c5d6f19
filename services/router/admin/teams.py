"""`/admin/teams`: teams of proxy keys."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, Self

from libs.common.contracts.events import Row
from libs.common.store.interface import Actor
from libs.common.store.rows import iso
from services.router.admin.schemas.keys import (
    OneTeamRow,
    TeamAsk,
    TeamChange,
    TeamRow,
    TeamsFilter,
    TeamsPage,
    stored_fields,
)
from services.router.admin.spent import Spent
from services.router.api.operation import Operation
from services.router.errors import Problem, found

_found = partial(found, "team_not_found", "/admin/teams")
USAGE = timedelta(days=30)
_USED = ("requests", "input_tokens", "output_tokens", "total_tokens")


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    def by(self, actor: Actor) -> Self: ...

    async def add(self, fields: Mapping[str, Any], at: datetime) -> Row | None: ...

    async def page(self, limit: int, after: str) -> list[Row]: ...

    async def get(self, id_: str) -> Row | None: ...

    async def members(self, id_: str, since: datetime) -> list[Row]: ...

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None: ...

    async def delete(self, id_: str) -> bool: ...


class Publisher(Protocol):
    """Publishes keys to the gateways."""

    def compare_soon(self) -> None:
        """All keys, within a second."""


class _Teams:
    def __init__(self, rows: Rows, publisher: Publisher, spent: Spent) -> None:
        self._rows = rows
        self._publisher = publisher
        self._spent = spent


class Teams(_Teams):
    @Operation(returns=TeamsPage, problems=(503,))
    async def on_get(self, query: TeamsFilter) -> dict[str, Any]:
        """Teams, by id."""
        rows = await self._rows.page(query.limit + 1, query.after or "")
        page = await self._spent.shown("team", rows[: query.limit])
        more = len(rows) > len(page)
        return {"data": page, "next_after": page[-1]["id"] if more else None}

    @Operation(returns=TeamRow, status=201, problems=(409, 503))
    async def on_post(self, body: TeamAsk, actor: Actor) -> Row:
        """Create a team. Keys that have its id belong to it."""
        row = await self._rows.by(actor).add(stored_fields(body), datetime.now(UTC))
        if row is None:
            raise Problem(
                409,
                "team_exists",
                f"The team {body.id!r} already exists. PATCH /admin/teams/{body.id} "
                "changes it.",
                param="id",
            )
        self._publisher.compare_soon()
        return await self._spent.of_changed("team", row)


class OneTeam(_Teams):
    @Operation(returns=OneTeamRow, problems=(404, 503))
    async def on_get(self, team_id: str) -> dict[str, Any]:
        """One team, with its keys and what they used in the last 30 days."""
        row = await self._spent.of("team", _found(await self._rows.get(team_id)))
        since = datetime.now(UTC) - USAGE
        members = await self._rows.members(team_id, since)
        usage = {name: sum(each.get(name, 0) for each in members) for name in _USED}
        return {**row, "members": members, "usage": {"since": iso(since), **usage}}

    @Operation(returns=TeamRow, problems=(404, 409, 503))
    async def on_patch(self, team_id: str, body: TeamChange, actor: Actor) -> Row:
        """Change a team; effective within two seconds."""
        fields = stored_fields(body, only_sent=True)
        row = _found(await self._rows.by(actor).change(team_id, fields))
        self._publisher.compare_soon()
        return await self._spent.of_changed("team", row)

    @Operation(returns=TeamRow, problems=(404, 409, 503))
    async def on_delete(self, team_id: str, actor: Actor) -> Row:
        """Delete a team that has no keys."""
        row = _found(await self._rows.get(team_id))
        if not await self._rows.by(actor).delete(team_id):
            _found(await self._rows.get(team_id))
            raise Problem(
                409,
                "team_has_keys",
                f"The team {team_id!r} has keys, which would lose its policy. Revoke "
                "them, or change their team_id.",
            )
        return await self._spent.of_changed("team", row)
