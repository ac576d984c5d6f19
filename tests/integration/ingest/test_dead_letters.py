"""`responses-proxy dead-letters` as a process, with a real ingest, on either
database."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from libs.common.contracts.events import Outcome, encode
from libs.common.store.dead_letters import content_id, entry_of
from libs.common.store.factory import open_store
from libs.common.store.interface import DeadLetter
from libs.common.store.store import Store
from services.ingest.decode import dead_letter
from tests.support.databases.sql import fetch, setting
from tests.support.preloaded import programs
from tests.support.processes.processes import BIN, ROOT, Process, ingesting
from tests.support.processes.waiting import eventually
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    health_event,
    request_event,
    stored_request,
)

pytestmark = pytest.mark.asyncio

STREAM = "telemetry:events"
ENTRY = f"{T0_MS}-0"
COMMAND = [sys.executable, "-P", "-m", "libs.cli.operations.dead_letters"]


@pytest.fixture
def environ(valkey: str, url: str) -> dict[str, str]:
    return {"PROXY_REDIS_URL": valkey, **setting(url)}


class Told:
    """What a command printed, and its exit code."""

    def __init__(
        self, environ: dict[str, str], *args: str, command: Sequence[str] = COMMAND
    ) -> None:
        done = programs.completed([*command, *args], environ, ROOT)
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


def letter(kind: str, id_: str, data: bytes, v: int = 1) -> DeadLetter:
    """A letter whose reason no longer exists, so that a replay succeeds."""
    fields = {b"kind": kind.encode(), b"id": id_.encode(), b"v": b"%d" % v,
              b"data": data}  # fmt: skip
    return dead_letter(ENTRY, fields, "refused on purpose")


def request_letter(id_: str, outcome: Outcome = Outcome.COMPLETED) -> DeadLetter:
    event = request_event(id_, outcome=outcome, total_tokens=7, session_id="s")
    return letter("request", id_, encode(event))


def ids(url: str) -> list[str]:
    return [id_ for (id_,) in fetch(url, "SELECT id FROM dead_letters ORDER BY id")]


def requests(url: str) -> Sequence[tuple[str, str]]:
    return fetch(url, "SELECT id, outcome FROM requests ORDER BY id")


async def test_after_a_fix_all_are_stored_and_gone(
    tmp_path: Path, environ: dict[str, str], store: Store, url: str
) -> None:
    await store.write([stored_request("b", outcome=Outcome.INTERRUPTED)])
    letters = [
        request_letter("a"),
        request_letter("b"),
        request_letter("c", Outcome.INTERRUPTED),
        letter("decision", "d", encode(decision_event("a"))),
        letter("health", "h", encode(health_event())),
    ]
    await store.write_dead_letters(letters)
    with ingesting(tmp_path, environ):
        told = Told(environ, "replay", "--all", "--wait", "30")
    assert (told.code, told.out) == (0, "5 of 5 stored\n"), told.err
    assert ids(url) == []
    assert requests(url) == [
        ("a", "completed"), ("b", "completed"), ("c", "interrupted"),
    ]  # fmt: skip
    assert fetch(url, "SELECT id FROM decisions") == [("d",)]
    assert fetch(url, "SELECT id FROM events WHERE kind = 'health'") == [("h",)]
    counts = await store.counts()
    assert (counts.requests, counts.dead_requests) == (3, 0)
    assert Told(environ, "list").out == "no dead letters\n"


async def test_what_is_refused_again_stays(
    tmp_path: Path, environ: dict[str, str], store: Store, url: str
) -> None:
    newer = letter("request", "n", encode(request_event("n")), v=9)
    other = dead_letter(ENTRY, {b"what": b"is this"}, "missing field: data")
    await store.write_dead_letters([newer, other, request_letter("a")])
    with ingesting(tmp_path, environ):
        told = Told(environ, "replay", "--all", "--wait", "30")
        one = Told(environ, "replay", newer.id)
    assert told.code == one.code == 1
    assert sorted(told.out.splitlines()) == sorted(
        [
            f"{newer.id}  sent, but rejected again: see its new reason with `show`",
            f"{other.id}  not possible: the row does not hold the complete entry",
            "1 of 3 stored",
        ]
    )
    assert ids(url) == sorted([newer.id, other.id])
    assert requests(url) == [("a", "completed")]


async def test_killed_between_sending_and_deleting(
    tmp_path: Path, environ: dict[str, str], redis: Redis, store: Store, url: str
) -> None:
    await store.write_dead_letters([request_letter("a")])
    command = [*COMMAND, "replay", "--all", "--wait", "100"]
    replay = Process(command, environ, tmp_path / "replay.log")

    async def sent() -> bool:
        return bool(await redis.xlen(STREAM))

    await eventually(sent)
    replay.kill()
    assert len(ids(url)) == 1
    with ingesting(tmp_path, environ):

        async def stored() -> bool:
            return not await redis.xlen(STREAM)

        await eventually(stored)
        again = Told(environ, "replay", "--all")
    assert (again.code, again.out) == (0, "1 of 1 stored\n")
    assert ids(url) == []
    assert fetch(url, "SELECT requests, total_tokens FROM sessions") == [(1, 7)]


async def test_without_ingest_nothing_is_deleted(
    environ: dict[str, str], redis: Redis, store: Store, url: str
) -> None:
    # Redis may be lost before the entry that was just sent is stored.
    await store.write([stored_request("a", outcome=Outcome.INTERRUPTED)])
    await store.write_dead_letters([request_letter("a")])
    told = Told(environ, "replay", "--all", "--wait", "0.3")
    assert told.code == 1
    assert "not stored yet" in told.out
    assert len(ids(url)) == 1
    assert await redis.xlen(STREAM) == 1


async def test_they_are_listed_and_shown(environ: dict[str, str], store: Store) -> None:
    evil = dead_letter(ENTRY, {b"kind": b"\x1b[31mred", b"data": b"\xff"}, "a\x07b")
    kept = request_letter("a")
    await store.write_dead_letters([evil, kept])
    listed = Told(environ, "list")
    assert "2 of 2 dead letters" in listed.out
    assert "refused on purpose" in listed.out
    assert "\x1b" not in listed.out
    assert "\x07" not in listed.out
    assert Told(environ, "list", "--limit", "1").out.count("\n") == 2
    shown = Told(environ, "show", kept.id).out
    assert "replay      possible" in shown
    assert '"total_tokens": 7' in shown
    assert "replay      not possible" in Told(environ, "show", evil.id).out


async def test_nonsense_is_answered_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/proxy.sqlite3"
    store = open_store(url)
    await store.migrate()
    await store.close()
    environ = {"PROXY_SQLITE_URL": url}
    for args in (["show", "nobody"], ["replay", "nobody"]):
        told = Told(environ, *args)
        assert told.code == 1
        assert told.err.startswith("responses-proxy: there is no dead letter nobody;")
    assert Told(environ, "replay").code == 2
    assert Told(environ, "replay", "x", "--all").code == 2


async def test_it_is_a_command_of_ours() -> None:
    command = [str(BIN / "responses-proxy"), "dead-letters"]
    told = Told({}, "--help", command=command)
    assert told.code == 0
    assert "replay" in told.out


async def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite3"
    told = Told({"PROXY_SQLITE_URL": f"sqlite:///{path}"}, "list")
    assert told.code == 2
    assert told.err.startswith("responses-proxy: PROXY_SQLITE_URL")
    assert not path.exists()


async def test_a_letter_that_was_cut_is_not_taken_for_the_whole() -> None:
    fields = {b"kind": b"request", b"id": b"a", b"v": b"1", b"data": b"{}" * 40_000}
    cut = dead_letter(ENTRY, fields, "too long")
    row = {"id": cut.id, "kind": cut.kind, "event_id": cut.event_id, "data": cut.data}
    assert entry_of(row) is None
    assert entry_of({**row, "data": "{}" * 40_000}) == fields
    assert content_id(fields) == cut.id
