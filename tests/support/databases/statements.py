"""A scripted Postgres connection that answers named statements, to check which
statements are run, in which order, with which values. tests/integration runs them on a
real server."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from libs.common.store.postgres.calls import SQL, Connection

NAMES = {text: name for name, text in SQL.texts.items()}
Answer = list[dict[str, Any]] | int | Exception
"""Rows, how many rows changed, or what is raised."""
Answers = Mapping[str, Answer | Callable[[Mapping[str, Any]], Answer]]


class Cursor:
    def __init__(self, answer: list[dict[str, Any]] | int) -> None:
        self._rows = [] if isinstance(answer, int) else answer
        self.rowcount = answer if isinstance(answer, int) else len(answer)

    async def fetchall(self) -> list[dict[str, Any]]:
        return self._rows

    async def fetchone(self) -> dict[str, Any] | None:
        return self._rows[0] if self._rows else None


class Copy:
    """COPY, recording the rows written to it."""

    def __init__(self) -> None:
        self.types: tuple[str, ...] = ()
        self.rows: list[tuple[Any, ...]] = []

    def set_types(self, types: tuple[str, ...]) -> None:
        self.types = types

    @property
    def formatter(self) -> "Copy":
        return self

    def write_row(self, row: tuple[Any, ...]) -> bytes:
        assert len(row) == len(self.types)
        self.rows.append(row)
        return b"" if len(self.rows) % 2 else b"data"

    async def write(self, data: bytes) -> None:
        assert data == b"data"


class FakeConnection:
    """`answers` is by statement: an answer, or a function of the values."""

    def __init__(self, answers: Answers | None = None) -> None:
        self.answers = answers or {}
        self.ran: list[str] = []
        self.values: dict[str, Mapping[str, Any]] = {}
        self.copied: dict[str, Copy] = {}

    @property
    def typed(self) -> Connection:
        return cast(Connection, self)

    async def execute(
        self, sql: str, values: Mapping[str, Any] | None = None
    ) -> Cursor:
        name = NAMES.get(sql, sql)
        self.ran.append(name)
        self.values[name] = values or {}
        return Cursor(self._answer(name))

    def _answer(self, name: str) -> list[dict[str, Any]] | int:
        answer = self.answers.get(name, [])
        if callable(answer):
            answer = answer(self.values[name])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cursor(self) -> "FakeConnection":
        return self

    @asynccontextmanager
    async def copy(self, sql: str) -> AsyncIterator[Copy]:
        name = NAMES[sql]
        self.ran.append(name)
        self.values[name] = {}
        self.copied[name] = copy = Copy()
        yield copy
        self._answer(name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self.ran.append("begin")
        try:
            yield
        except BaseException:
            self.ran.append("rollback")
            raise
        self.ran.append("commit")
