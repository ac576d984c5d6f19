"""`GET /admin/events`: what the proxy is doing, each second, as server-sent events.
Each event is gathered and serialized once, however many clients watch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from falcon.asgi import SSEvent

from libs.common.contracts.events import Row
from libs.common.errors import StoreAway
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.store.interface import HistoryQuery, Page
from services.router.admin.ledger import PATIENCE_S
from services.router.admin.schemas.attention import AttentionItem
from services.router.admin.schemas.events import EventsFilter, WatchedState
from services.router.admin.schemas.state import AdminState
from services.router.admin.state import EVERY_S, RECENT
from services.router.api.operation import EVENTS, Operation
from services.router.errors import Problem

MOST_WATCHING = 100
LONGEST_S = 300.0  # clients reconnect; this closes connections that nobody reads
# Of these a change has the new ones; all else is sent whole.
LISTS = ("decisions", "requests")

Content = Mapping[str, Any]


class Rows(Protocol):
    async def history(self, query: HistoryQuery) -> Page: ...


class Tick:
    """The state of one second. What nobody asks for is not serialized."""

    def __init__(self, number: int, state: AdminState, before: Content) -> None:
        """`before`: the content of the tick before, empty if nobody asked for it."""
        self.number = number
        self.state = state
        self.content: Content = {}
        self._before = before
        self._packed: dict[str, bytes] = {}

    @property
    def plain(self) -> bytes:
        """As `/admin/state`."""
        return self._once("plain", lambda: self.state.model_dump_json().encode())

    @property
    def whole(self) -> bytes:
        return self._once("whole", lambda: msgspec.json.encode(self.content))

    @property
    def change(self) -> bytes | None:
        """What differs from the tick before; None if that cannot be said."""
        found = self._once("change", self._changed)
        return found or None

    def _changed(self) -> bytes:
        found = change(self._before, self.content) if self._before else None
        return b"" if found is None else msgspec.json.encode(found)

    def _once(self, name: str, pack: Callable[[], bytes]) -> bytes:
        if name not in self._packed:
            self._packed[name] = pack()
        return self._packed[name]


def change(before: Content, now: Content) -> dict[str, Any] | None:
    """The members of `now` that differ from `before`: of resources those that differ,
    of decisions and requests the new ones. None if there are other resources than
    before, or in another order."""
    old = before["resources"]
    if [each["id"] for each in old] != [each["id"] for each in now["resources"]]:
        return None
    found: dict[str, Any] = {
        name: value
        for name, value in now.items()
        if value != before[name] or name == "timestamp"
    }
    if "resources" in found:
        found["resources"] = [
            each for each, was in zip(now["resources"], old, strict=True) if each != was
        ]
    for name in LISTS:
        if name in found:
            known = {row["id"] for row in before[name]}
            found[name] = [row for row in now[name] if row["id"] not in known]
    return found


class Feed:
    """The newest tick, at most half a second old."""

    def __init__(
        self,
        state: Callable[[], Awaitable[AdminState]],
        store: Rows,
        attention: Callable[[], Awaitable[tuple[AttentionItem, ...]]],
    ) -> None:
        self._state = state
        self._store = store
        self._attention = attention
        self._gathering = asyncio.Lock()
        self._latest: Tick | None = None
        self._latest_at = 0.0

    async def plain(self) -> Tick:
        """For clients that read only what `/admin/state` has."""
        return await self._tick(with_content=False)

    async def watched(self) -> Tick:
        """With what a change is made from."""
        return await self._tick(with_content=True)

    async def _tick(self, *, with_content: bool) -> Tick:
        clock = asyncio.get_running_loop().time
        async with self._gathering:
            last = self._latest
            if last is None or clock() - self._latest_at > EVERY_S / 2:
                before = last.content if last else {}
                number = last.number + 1 if last else 1
                last = self._latest = Tick(number, await self._state(), before)
                self._latest_at = clock()
            if with_content and not last.content:
                last.content = await self._content(last.state)
            return last

    async def _content(self, state: AdminState) -> Content:
        requests, attention = await asyncio.gather(self._requests(), self._attention())
        return {
            **state.model_dump(),
            "decisions": [_without_candidates(row) for row in state.decisions],
            "requests": requests,
            "attention": [each.model_dump() for each in attention],
        }

    async def _requests(self) -> list[Row]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                page = await self._store.history(HistoryQuery("requests", limit=RECENT))
        except (StoreAway, TimeoutError):
            return []  # `degraded` says so
        return list(page.rows)


def _without_candidates(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "candidates"}


class Events:
    """Falcon notices a client that disconnects while it sends events, so such a client
    costs at most one more second."""

    def __init__(self, feed: Feed, stopping: asyncio.Event) -> None:
        """`stopping` ends all streams, because Granian waits for them."""
        self._feed = feed
        self._stopping = stopping
        self._watching = 0

    @Operation(returns=WatchedState, media=EVENTS, problems=(503,))
    async def on_get(self, query: EventsFilter) -> AsyncIterator[SSEvent]:
        """What the proxy is doing, each second, as server-sent events: named `state`
        with what GET /admin/state returns; with `changes=true` one of these, with
        `requests` and `attention`, and then events named `change` with what is new."""
        if self._watching >= MOST_WATCHING:
            raise Problem(
                503,
                "too_many_watchers",
                f"{MOST_WATCHING} clients watch /admin/events of this router. Close "
                "some, or poll GET /admin/state.",
            )
        return self._paced(self._changes() if query.changes else self._states())

    async def _paced(
        self, events: AsyncIterator[SSEvent | None]
    ) -> AsyncIterator[SSEvent]:
        """One event a second, until the router stops or the client has to reconnect."""
        clock = asyncio.get_running_loop().time
        ends = clock() + LONGEST_S
        stopped = False
        self._watching += 1
        try:
            while clock() < ends and not stopped:
                event = await anext(events)
                if event is not None:
                    yield event
                stopped = await wait_for_stop(self._stopping, EVERY_S)
        finally:
            self._watching -= 1

    async def _states(self) -> AsyncIterator[SSEvent | None]:
        while True:
            tick = await self._feed.plain()
            yield SSEvent(event="state", data=tick.plain)

    async def _changes(self) -> AsyncIterator[SSEvent | None]:
        seen = 0
        while True:
            tick = await self._feed.watched()
            if tick.number == seen:
                yield None
                continue
            follows = tick.number == seen + 1
            changed = tick.change if follows else None
            seen = tick.number
            if changed is None:
                yield SSEvent(event="state", data=tick.whole)
            else:
                yield SSEvent(event="change", data=changed)
