"""List, show and resend events that could not be stored.

A dead letter is deleted only after its event is stored. The command can be repeated at
any time, also after a crash: an event that is sent twice is stored once, and an event
that is rejected again becomes the same dead letter again."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated

import typer

from libs.cli.run import FAILED, new_app, run_app
from libs.cli.text import plain
from libs.common.contracts.events import Row
from libs.common.errors import SettingError
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.settings.base import CommonSettings, DatabaseSettings
from libs.common.store.dead_letters import entry_of
from libs.common.store.factory import missing_file, open_store
from libs.common.store.store import Store

REASON_CHARS = 70  # in a list
LOOK_EVERY_S = 0.2
TOGETHER = 200  # letters sent before waiting for them

CANNOT = "not possible: the row does not hold the complete entry"
REFUSED = "sent, but rejected again: see its new reason with `show`"
LATE = "sent, but not stored yet: check that ingest runs, then try again"

app = new_app(__doc__)


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
) -> None:
    """List the newest dead letters, one per line."""
    _do(lambda store: _list(store, limit))


@app.command()
def show(letter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show one dead letter in full."""
    _do(lambda store: _show(store, letter_id))


@app.command()
def replay(
    letter_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All dead letters, oldest first.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for ingest.")
    ] = 10.0,
) -> None:
    """Resend one dead letter, or all of them, and delete those that were stored."""
    if everything == (letter_id is not None):
        raise typer.BadParameter("give either an ID or --all")
    _do(lambda store: _replay(store, letter_id, wait_s))


def _do(work: Callable[[Store], Awaitable[bool]]) -> None:
    """Exit with 0 if `work` returns true, else with 1."""
    if not asyncio.run(_with_store(_database(), work)):
        raise typer.Exit(FAILED)


def _database() -> str:
    """The database that holds the letters. Raises instead of creating a missing SQLite
    file."""
    url = DatabaseSettings.read(os.environ).url
    if (path := missing_file(url)) is not None:
        raise SettingError(
            "PROXY_SQLITE_URL",
            f"names {path}, which does not exist",
            "Run this command with the settings of ingest, or start ingest first",
        )
    return url


async def _with_store(url: str, work: Callable[[Store], Awaitable[bool]]) -> bool:
    async with open_store(url) as store:
        return await work(store)


async def _list(store: Store, limit: int) -> bool:
    rows = await store.dead_letters(limit)
    for row in rows:
        columns = (row["id"], row["created_at"], row["kind"], row["event_id"])
        named = "  ".join(plain(column or "-") for column in columns)
        print(f"{named}  {plain(row['reason'])[:REASON_CHARS]}")
    total = (await store.counts()).dead_letters
    print(f"{len(rows)} of {total} dead letters" if total else "no dead letters")
    return True


async def _show(store: Store, letter_id: str) -> bool:
    letter = await store.dead_letter(letter_id)
    if letter is None:
        return _unknown(letter_id)
    for name in ("id", "created_at", "kind", "event_id", "entry_id", "reason"):
        print(f"{name:<10}  {plain(letter[name] or '-')}")
    whole = entry_of(letter) is not None
    print(f"{'replay':<10}  {'possible' if whole else CANNOT}")
    print(plain(_indented(letter["data"])))
    return True


async def _replay(store: Store, letter_id: str | None, wait_s: float) -> bool:
    if letter_id is None:
        ids: Sequence[str] = await store.dead_letter_ids()
    elif await store.dead_letter(letter_id) is None:
        return _unknown(letter_id)
    else:
        ids = (letter_id,)
    settings = CommonSettings.read(os.environ)
    redis = connect(settings.redis_url, settings.redis_keys)
    async with aclosing(redis):
        stream = TelemetryStream(
            redis, settings.telemetry_stream, settings.telemetry_group
        )
        again = Replay(store, stream, wait_s)
        for start in range(0, len(ids), TOGETHER):
            await again.send(ids[start : start + TOGETHER])
    print(f"{again.stored} of {len(ids)} stored")
    return again.stored == len(ids)


class Replay:
    """Resends letters and deletes those whose events were stored."""

    def __init__(self, store: Store, stream: TelemetryStream, wait_s: float) -> None:
        self._store = store
        self._stream = stream
        self._wait_s = wait_s
        self.stored = 0

    async def send(self, ids: Sequence[str]) -> None:
        sent: list[Row] = []
        for id_ in ids:
            letter = await self._store.dead_letter(id_)
            if letter is None or await self._settled(letter):
                continue  # an interrupted replay stored it
            entry = entry_of(letter)
            if entry is None:
                print(f"{id_}  {CANNOT}")
                continue
            await self._stream.append_fields(entry)
            sent.append(letter)
        for letter, why in await self._left(sent):
            print(f"{letter['id']}  {why}")

    async def _settled(self, letter: Row) -> bool:
        stored = await self._store.forget_dead_letter(letter)
        self.stored += stored
        return stored

    async def _left(self, waiting: list[Row]) -> list[tuple[Row, str]]:
        """The letters that were not stored in time, each with the reason."""
        clock = asyncio.get_running_loop().time
        ends = clock() + self._wait_s
        while True:
            # Depth first: an entry that has left the stream is already stored or
            # rejected.
            empty = await self._stream.depth() == 0
            waiting = [each for each in waiting if not await self._settled(each)]
            if not waiting:
                return []
            if empty:
                return [(each, REFUSED) for each in waiting]
            if clock() >= ends:
                return [(each, LATE) for each in waiting]
            await asyncio.sleep(LOOK_EVERY_S)


def _unknown(letter_id: str) -> bool:
    print(
        f"responses-proxy: there is no dead letter {plain(letter_id)}; "
        "`responses-proxy dead-letters list` shows their ids",
        file=sys.stderr,
    )
    return False


def _indented(data: str) -> str:
    try:
        return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return data


if __name__ == "__main__":
    run_app(app, "responses-proxy dead-letters")
