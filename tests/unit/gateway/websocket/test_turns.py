"""Requests on sockets: each has its own row, lease and decision, whatever runs at the
same time."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from libs.common.contracts.catalogue import Alias, ModelTarget
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.types import (
    Decision,
    NoCapacity,
    Owner,
    OwnerLimited,
    digest,
    session_digest,
)
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import SECRET, World
from tests.support.memory.socket_talk import Sockets, Talk
from tests.support.memory.twin import Twin, resource

KEY: Header = (b"authorization", b"Bearer " + SECRET.encode())
ALIAS = Alias(alias="fast", provider_id="local", upstream_id="m-8b")
OTHER = Alias(alias="slow", provider_id="other", upstream_id="m-70b")


def event(kind: str, lane: str | None = None, **response: Any) -> dict[str, Any]:
    told = {"type": kind, "response": {"id": "resp_1", "object": "response"} | response}
    return told if lane is None else told | {"stream_id": lane}


def done(lane: str | None = None, **response: Any) -> dict[str, Any]:
    return event("response.completed", lane, **response)


async def joined(
    root: Path, *headers: Header, twin: Twin | None = None, capture: int = 0
) -> tuple[World, Sockets, Talk]:
    world = World(root, twin or Twin(resource("a")), capture=capture)
    sockets = Sockets(world)
    return world, sockets, await sockets.opened(*headers)


async def over(world: World, talk: Talk) -> list[dict[str, Any]]:
    await talk.closes()
    await talk.ended()
    world.is_at_rest()
    return world.requests


@timeless
async def test_a_request_is_a_row_with_what_its_answer_told(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path, capture=10_000)
    await talk.says({"type": "session.update"})
    await talk.creates(model="m", metadata={"session_id": "s"})
    upstream = sockets.upstream()
    upstream.says(event("response.created"))
    upstream.says({"type": "response.output_text.delta"})
    upstream.says({"type": "response.output_text.delta"})
    upstream.says(
        done(usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
    )
    upstream.says({"type": "after the end"})
    await settled()
    assert len(talk.hears()) == 5
    (row,) = await over(world, talk)
    assert (row["outcome"], row["status_code"], row["transport"]) == (
        "completed",
        200,
        "ws",
    )
    assert (row["response_id"], row["total_tokens"], row["session_id"]) == (
        "resp_1",
        3,
        "s",
    )
    assert (row["method"], row["model"], row["attempts"]) == ("WS", "m", 1)
    assert row["first_token_ms"] >= 0
    assert row["response_bytes"] > 0
    (release,) = world.twin.released
    assert release.learned == (digest("resp_1"),)
    assert release.verdict is not None
    assert release.verdict.kind == "ok"
    assert [decision["reason"] for decision in world.decisions] == [
        "weighted_least_connections"
    ]


@timeless
async def test_later_requests_go_where_the_socket_goes(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    for _ in range(3):
        await talk.creates(model="m")
        sockets.upstream().says(done())
        await settled()
    rows = await over(world, talk)
    assert len({row["id"] for row in rows}) == 3
    assert [d["reason"] for d in world.decisions[1:]] == ["socket", "socket"]
    assert {d["request_id"] for d in world.decisions} == {row["id"] for row in rows}
    assert {row["resource_id"] for row in rows} == {"a"}


@timeless
async def test_while_redis_is_away_requests_go_on_and_are_in_the_books(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says(done())
    await settled()
    world.twin.away = True
    await talk.creates(model="m")
    sockets.upstream().says(done())
    await settled()
    rows = await over(world, talk)
    assert [row["outcome"] for row in rows] == ["completed", "completed"]
    later = world.decisions[-1]
    assert (later["reason"], later["degraded"]) == ("socket", True)


@pytest.mark.parametrize(
    ("end", "outcome", "status", "verdict"),
    [
        pytest.param(event("response.incomplete"), "completed", 200, "ok",
                     id="incomplete"),
        pytest.param(
            event("response.failed", error={"code": "server_error"}), "failed", 200,
            "fault", id="failed",
        ),
        pytest.param(
            {"type": "error", "status": 429, "error": {"code": "rate_limit_exceeded"}},
            "failed", 429, "limited", id="429",
        ),
        pytest.param(
            event("response.failed", error={"code": "insufficient_quota"}), "failed",
            200, "exhausted", id="no money",
        ),
        pytest.param(
            {"type": "error", "error": {"code": "invalid"}}, "failed", 200, "neutral",
            id="error",
        ),
    ],
)  # fmt: skip
@timeless
async def test_an_end_is_an_outcome(
    tmp_path: Path, end: dict[str, Any], outcome: str, status: int, verdict: str
) -> None:
    """Once the answer began: before that, an error sends the turn elsewhere."""
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says({"type": "response.output_item.added"})
    sockets.upstream().says(end)
    await settled()
    (row,) = await over(world, talk)
    assert (row["outcome"], row["status_code"]) == (outcome, status)
    (release,) = world.twin.released
    assert release.verdict is not None
    assert release.verdict.kind == verdict


@timeless
async def test_events_belong_to_the_request_of_their_lane(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    for lane in ("one", "two"):
        await talk.creates(model=lane, stream_id=lane)
    upstream = sockets.upstream()
    upstream.says(done("two", id="resp_2"))
    upstream.says(done("three", id="resp_3"))
    await settled()
    assert [row["model"] for row in world.requests] == ["two"]
    upstream.says(done(None, id="resp_4"))  # some do not echo the lane
    await settled()
    rows = await over(world, talk)
    told = [(row["model"], row["response_id"]) for row in rows]
    assert told == [("two", "resp_2"), ("one", "resp_4")]


@timeless
async def test_within_a_lane_requests_are_answered_in_order(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    for model in ("first", "second"):
        await talk.creates(model=model)
    for number in range(2):
        sockets.upstream().says(done(id=f"resp_{number}"))
    await settled()
    rows = await over(world, talk)
    told = [(row["model"], row["response_id"]) for row in rows]
    assert told == [("first", "resp_0"), ("second", "resp_1")]


@timeless
async def test_odd_events_pass(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    upstream = sockets.upstream()
    odd = ['{"type": 7}', "[]", '{"type":"error","x":' + "[" * 3000 + "]" * 3000 + "}"]
    for frame in odd:
        upstream.protocol.send_text(frame.encode())
    upstream.hears()
    await settled()
    frames = talk.peer.hears(talk.wire.take())
    assert [bytes(frame.data).decode() for frame in frames] == odd
    await talk.closes()
    await talk.ended()
    world.is_at_rest()


@timeless
async def test_a_client_that_leaves_after_the_first_event_was_answered(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says(event("response.created"))
    await settled()
    (row,) = await over(world, talk)
    assert (row["outcome"], row["status_code"]) == ("cancelled", 200)
    assert row["response_id"] == "resp_1"


@timeless
async def test_a_socket_is_its_keys_and_tokens_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path, Twin(resource("a")))
    world.table.put(Principal(id="k", pool_id="pool", tokens_per_minute=9))
    sockets = Sockets(world)
    talk = await sockets.asks(KEY)
    while not world.upstreams:
        clock().advance(0.1)
        await settled()
    sockets.upstream().accepts()
    await settled()
    talk.hears()
    await talk.creates(model="m")
    sockets.upstream().says(
        done(usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
    )
    await settled()
    (row,) = await over(world, talk)
    assert (row["proxy_key_id"], row["pool_id"]) == ("k", "pool")
    counted = world.twin.released[-1]
    assert counted.quota is not None
    assert (counted.tokens, counted.quota.key_id) == (3, "k")


@timeless
async def test_a_key_that_was_revoked_ends_the_next_request_alone(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Twin(resource("a")))
    world.table.put(Principal(id="k"))
    sockets = Sockets(world)
    talk = await sockets.asks(KEY)
    while not world.upstreams:
        clock().advance(0.1)
        await settled()
    sockets.upstream().accepts()
    await settled()
    talk.hears()
    world.table.put(Principal(id="k", enabled=False))
    await world.refreshed()
    await talk.creates(model="m")
    (told,) = talk.hears()
    assert (told["status"], told["error"]["code"]) == (401, "invalid_proxy_key")
    (row,) = await over(world, talk)
    assert (row["outcome"], row["error_code"]) == ("failed", "invalid_proxy_key")


# Model aliases -----------------------------------------------------------------


def providers() -> Twin:
    return Twin(
        resource("a", provider_id="local"),
        resource("b", provider_id="other"),
        aliases=(ALIAS, OTHER),
    )


@pytest.mark.parametrize("binary", [False, True])
@timeless
async def test_an_alias_is_replaced_in_its_frame(tmp_path: Path, binary: bool) -> None:
    twin = Twin(resource("a", provider_id="local"), aliases=(ALIAS,))
    world, sockets, talk = await joined(tmp_path, twin=twin)
    frame = json.dumps({"type": "response.create", "model": "fast", "x": 1})
    await talk.says(frame.encode() if binary else frame)
    (got,) = sockets.upstream().hears()
    sent = json.loads(got) if binary else got
    assert sent == {"type": "response.create", "model": "m-8b", "x": 1}
    sockets.upstream().says(done())
    await settled()
    (row,) = await over(world, talk)
    assert (row["model"], row["upstream_model"]) == ("fast", "m-8b")


@timeless
async def test_a_first_alias_takes_the_socket_where_it_leads(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path, twin=providers())
    name = world.wires.dialled[0][0].host
    model, home = ("slow", "b") if name == "a.test" else ("fast", "a")
    await talk.creates(model=model)
    sockets.upstream(1).accepts()
    await settled()
    assert sockets.upstream(0).close_code == 1000
    await settled()
    assert sockets.upstream(1).hears()[0]["type"] == "response.create"
    sockets.upstream(1).says(done())
    await settled()
    assert talk.hears() == [done()]
    (row,) = await over(world, talk)
    assert (row["resource_id"], row["outcome"]) == (home, "completed")


@timeless
async def test_a_later_alias_that_leads_elsewhere_needs_another_socket(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path, twin=providers())
    name = world.wires.dialled[0][0].host
    here, there = ("fast", "slow") if name == "a.test" else ("slow", "fast")
    await talk.creates(model=here)
    sockets.upstream().says(done())
    await settled()
    talk.hears()
    await talk.creates(model=there)
    (told,) = talk.hears()
    assert (told["status"], told["error"]["code"]) == (400, "model_not_here")
    rows = await over(world, talk)
    assert [row["outcome"] for row in rows] == ["completed", "failed"]


BOTH = Alias(
    alias="both",
    provider_id="local",
    upstream_id="m-8b",
    targets=(
        ModelTarget(provider_id="local", upstream_id="m-8b"),
        ModelTarget(provider_id="other", upstream_id="m-70b", priority=1),
    ),
)


def two_targets() -> Twin:
    """The upgrade leads to a."""
    local, other = (
        resource(name, provider_id=provider)
        for name, provider in (("a", "local"), ("b", "other"))
    )
    twin = Twin(local, other, aliases=(BOTH, OTHER))
    twin.says.append(Decision("a", "weighted_least_connections", "v2"))
    return twin


async def served(sockets: Sockets, talk: Talk, model: str, **more: Any) -> str:
    """A turn that the newest upstream socket serves. Returns the model sent to it."""
    await talk.creates(model=model, **more)
    return await answers(sockets, talk)


async def answers(sockets: Sockets, talk: Talk) -> str:
    (sent,) = sockets.upstream().hears()
    sockets.upstream().says(done())
    await settled()
    assert talk.hears() == [done()]
    return str(sent["model"])


@timeless
async def test_a_turn_stays_on_its_socket_if_a_target_is_there(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path, twin=two_targets())
    await talk.creates(model="slow")  # of the other provider
    sockets.upstream(1).accepts()
    await settled()
    assert await answers(sockets, talk) == "m-70b"
    # The alias prefers the provider `local`, but the socket leads to `other`.
    assert await served(sockets, talk, "both") == "m-70b"
    assert len(world.upstreams) == 2
    rows = await over(world, talk)
    assert [row["resource_id"] for row in rows] == ["b", "b"]
    assert rows[1]["pool_id"] == "@other"


@timeless
async def test_a_turn_goes_to_another_target_when_the_one_of_its_socket_fails(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path, twin=two_targets())
    assert await served(sockets, talk, "both") == "m-8b"
    await talk.creates(model="both")
    limited = {"type": "error", "status": 429, "error": {"code": "rate_limit_exceeded"}}
    assert sockets.upstream().hears()[0]["model"] == "m-8b"
    sockets.upstream().says(limited)
    await settled()
    sockets.upstream().accepts()
    await settled()
    assert await answers(sockets, talk) == "m-70b"
    # The next turn follows the socket.
    assert await served(sockets, talk, "both") == "m-70b"
    rows = await over(world, talk)
    assert [row["upstream_model"] for row in rows] == ["m-8b", "m-70b", "m-70b"]
    assert [row["attempts"] for row in rows] == [1, 2, 1]
    assert "rate_limited" in [decision["cause"] for decision in world.decisions]


@timeless
async def test_a_turn_whose_target_cools_down_goes_to_another(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path, twin=two_targets())
    assert await served(sockets, talk, "both") == "m-8b"
    world.twin.says.append(NoCapacity(1000))
    await talk.creates(model="both")
    sockets.upstream().accepts()
    await settled()
    assert await answers(sockets, talk) == "m-70b"
    assert world.decisions[-1]["cause"] == "target_unavailable"
    # One that continues a response of the first provider returns there.
    owner = Owner("a", "account-a")
    world.twin.local.keep(world.twin.local.ids, digest("resp_7"), owner)
    await talk.creates(model="both", previous_response_id="resp_7")
    sockets.upstream().accepts()
    await settled()
    assert await answers(sockets, talk) == "m-8b"
    await over(world, talk)


@timeless
async def test_a_continued_turn_whose_account_is_limited_may_begin_anew(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path, twin=two_targets())
    assert await served(sockets, talk, "both") == "m-8b"
    world.twin.says.append(OwnerLimited(1000))
    await talk.creates(model="both", previous_response_id="resp_1")
    (told,) = talk.hears()
    assert told["error"]["code"] == "previous_response_not_found"
    await over(world, talk)


# Odd order ---------------------------------------------------------------------


@pytest.mark.interpreted
@timeless
async def test_an_event_before_the_frame_was_sent_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, sockets, talk = await joined(tmp_path)
    waits = asyncio.get_running_loop().create_future()

    async def enter(_: Any) -> None:
        await waits

    monkeypatch.setattr(world.access, "enter", enter)
    await talk.creates(model="m")
    sockets.upstream().says({"type": "keepalive"})
    await settled()
    waits.set_result(None)
    await settled()
    sockets.upstream().says(done())
    await settled()
    (row,) = await over(world, talk)
    assert 0 <= row["upstream_ms"] < 10_000
    assert row["outcome"] == "completed"


@pytest.mark.interpreted
@timeless
async def test_a_socket_that_ends_during_admission_has_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, talk = await joined(tmp_path)
    waits = asyncio.get_running_loop().create_future()

    async def enter(_: Any) -> None:
        await waits

    monkeypatch.setattr(world.access, "enter", enter)
    await talk.creates(model="m")
    world.upstreams[0].hangs_up()
    await settled()
    assert not talk.task.done()  # the turn needs another upstream socket
    await talk.closes()
    await talk.ended()
    world.is_at_rest()
    (row,) = world.requests
    assert (row["outcome"], row["attempts"]) == ("cancelled", 1)


@timeless
async def test_a_pool_that_another_frame_names_does_not_matter(tmp_path: Path) -> None:
    """The pool was chosen with the socket."""
    world = World(tmp_path, Twin(resource("a")))
    world.table.put(Principal(id="k", pools=("pool",)))
    sockets = Sockets(world)
    talk = await sockets.opened(KEY)
    await talk.says({"type": "response.cancel", "metadata": {"pool_id": "other"}})
    assert talk.hears() == []
    assert not talk.task.done()
    await talk.creates(model="m", metadata={"pool_id": "other"})
    sockets.upstream().says(done())
    await settled()
    (row,) = await over(world, talk)
    assert (row["pool_id"], row["outcome"]) == ("pool", "completed")


@timeless
async def test_a_turn_counts_as_load_where_its_session_lives(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path, twin=Twin(resource("a")))
    world.twin.local.remember({session_digest("s"): Owner("a", "account-a")}, {})
    await talk.creates(model="m", metadata={"session_id": "s"})
    assert len(world.offline.local.leases["a"]) == 1
    sockets.upstream().says(done())
    await settled()
    assert not world.offline.local.leases["a"]
    await over(world, talk)


# Isolation ---------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
@timeless
async def test_another_frame_may_name_its_own_ids_only(
    tmp_path: Path, strict: bool
) -> None:
    world = World(tmp_path, Twin(resource("a")))
    world.access.strict = strict
    principal = Principal(id="k", team_id="t")
    world.table.put(principal)
    theirs = Owner("a", "account-a", "they")
    world.twin.local.remember({}, {digest("resp_9"): theirs})
    sockets = Sockets(world)
    talk = await sockets.opened(KEY)
    await talk.creates(model="m")
    sockets.upstream().says(event("response.created"))
    await settled()
    talk.hears()
    await talk.says({"type": "response.cancel", "response_id": "resp_1"})  # it runs
    assert talk.hears() == []
    await talk.says({"type": "response.cancel", "response_id": "resp_9"})
    assert len(talk.hears()) == 1
    sockets.upstream().says(done())
    await settled()
    assert [row["outcome"] for row in await over(world, talk)] == ["completed"]


@timeless
async def test_a_strict_gateway_refuses_binary_frames(tmp_path: Path) -> None:
    world = World(tmp_path, Twin(resource("a")))
    world.access.strict = True
    world.table.put(Principal(id="k"))
    talk = await Sockets(world).opened(KEY)
    await talk.says(b'{"type":"response.create"}')
    (refused,) = talk.hears()
    assert "binary" in refused["error"]["message"]
    assert await over(world, talk) == []


# Large frames ------------------------------------------------------------------


@timeless
async def test_large_frames_are_read_in_steps(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m", input="x" * 60_000)
    sockets.upstream().says(event("response.created", instructions="y" * 60_000))
    sockets.upstream().says(
        done(
            instructions="y" * 60_000,
            usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        )
    )
    for _ in range(5):
        await settled()
    (row,) = await over(world, talk)
    assert (row["model"], row["total_tokens"], row["outcome"]) == ("m", 3, "completed")


@pytest.mark.interpreted
@pytest.mark.parametrize("large", [True, False])
@timeless
async def test_an_event_that_cannot_be_understood_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    def odd(*_: Any, **__: Any) -> Any:
        raise RuntimeError("odd")

    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    monkeypatch.setattr("services.gateway.websocket.turn_events.LargeAnswer", odd)
    monkeypatch.setattr("services.gateway.websocket.turn_events.read_event", odd)
    sockets.upstream().says(done(instructions="y" * (60_000 if large else 1)))
    await settled()
    assert len(talk.hears()) == 1
    monkeypatch.undo()
    (row,) = await over(world, talk)
    assert row["outcome"] == "cancelled"


@timeless
async def test_the_ids_of_a_large_created_event_are_not_read_twice(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says(event("response.created", instructions="y" * 60_000))
    for _ in range(3):
        await settled()
    (row,) = await over(world, talk)
    assert (row["outcome"], row.get("response_id")) == ("cancelled", None)
