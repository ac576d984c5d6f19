"""What doctor says about a Redis Cluster."""

import asyncio
from typing import Any

import pytest

from libs.cli.checks import servers
from libs.cli.checks.cluster import cluster
from libs.cli.checks.finding import Context, Finding, Level
from libs.common.redis.cluster.layout import slot_of
from libs.common.redis.keys import Keys
from tests.support.databases.resp import Command, scripted
from tests.support.databases.scripted_cluster import (
    DOWN,
    SLOT,
    ScriptedCluster,
    scripted_cluster,
)

pytestmark = pytest.mark.asyncio

INFO = b"redis_version:7.2.4\r\nrole:master\r\n"


def answer(command: Command) -> Any:
    """An owner without keys, with the functions."""
    answers = {b"INFO": INFO, b"DBSIZE": 0, b"FUNCTION": [[b"library_name", b"rpx"]]}
    return answers[command[0]]


def functions_everywhere(made: ScriptedCluster, without: int | None = None) -> None:
    for number, node in enumerate(made.nodes):

        def reply(command: Command, number: int = number) -> Any:
            if command[0] == b"FUNCTION":
                return [] if without in (number, -1) else [[b"library_name", b"rpx"]]
            return made.reply(number, command)

        node.answer = reply


async def found(url: str) -> list[Finding]:
    return await asyncio.to_thread(lambda: list(cluster(url, 1.0)))


async def test_each_node_and_then_the_whole() -> None:
    async with scripted_cluster(answer) as made:
        functions_everywhere(made)
        context = Context({"PROXY_REDIS_URL": made.url}, 1.0)
        findings = await asyncio.to_thread(lambda: list(servers.redis(context)))
    assert [each.level for each in findings] == [Level.OK] * 5
    assert [each.subject.partition(" 127")[0] for each in findings] == [
        *["redis node"] * 3,
        *["redis cluster"] * 2,
    ]
    assert "with 2 replicas" in findings[3].state
    assert findings[4].state == "all 3 primaries have the functions"


async def test_the_slot_of_a_namespace_and_its_node_are_named() -> None:
    keys = Keys("b_2")
    listed: list[Command] = []

    def answer_for(command: Command) -> Any:
        if command[0] == b"FUNCTION":
            listed.append(command)
        return answer(command)

    async with scripted_cluster(answer_for) as made:
        given = {"PROXY_REDIS_URL": made.url, "PROXY_REDIS_NAMESPACE": "b_2"}
        context = Context(given, 1.0)
        findings = await asyncio.to_thread(lambda: list(servers.redis(context)))
        place = made.place(0)
    (owner,) = (f.state for f in findings if "in which all keys are" in f.state)
    assert owner.startswith(
        f"slot {slot_of(keys)} of {{b_2}}, in which all keys are, is at {place}"
    )
    assert {command[-1] for command in listed} == {b"b_2"}


async def test_a_node_that_cannot_be_reached_is_named() -> None:
    async with scripted_cluster(answer) as made:
        functions_everywhere(made)
        first, *others = await found(f"{made.url.replace('://', '://127.0.0.1:1,')}")
    assert (first.subject, first.level) == ("redis node 127.0.0.1:1", Level.FAILED)
    assert {each.level for each in others} == {Level.OK}


async def test_a_cluster_that_is_down() -> None:
    async with scripted_cluster(answer) as made:
        made.states = dict.fromkeys(range(3), DOWN)
        findings = await found(made.url)
    assert [each.level for each in findings] == [Level.FAILED] * 3
    assert "the cluster is down" in findings[0].state


async def test_a_server_that_is_no_node_is_refused_without_the_password() -> None:
    no = Exception("ERR This instance has cluster support disabled")
    async with scripted(lambda _: no) as server:
        url = server.url.replace("redis://", "redis+cluster://:hush@")
        (finding,) = await found(url)
    assert (finding.subject, finding.level) == ("PROXY_REDIS_URL", Level.REFUSED)
    assert "is no node of a cluster" in finding.state
    assert "hush" not in str(finding)


async def test_a_slot_that_nobody_has() -> None:
    async with scripted_cluster(answer) as made:
        made.slots = SLOT + 1
        *_, last = await found(made.url)
    assert (last.level, last.state) == (
        Level.FAILED,
        f"no node has slot {SLOT} of {{rpx}}, in which all keys are",
    )


async def test_an_owner_without_a_replica() -> None:
    async with scripted_cluster(answer, nodes=1) as made:
        _, owner, _ = await found(made.url)
    assert (owner.level, "without a replica" in owner.state) == (Level.WARNING, True)


@pytest.mark.parametrize(
    ("without", "level", "says"),
    [
        (-1, Level.OK, "no primary has the functions yet"),
        (2, Level.WARNING, "1 of 3 primaries have no functions (127.0.0.1:"),
    ],
)
async def test_primaries_without_the_functions(
    without: int, level: Level, says: str
) -> None:
    async with scripted_cluster(answer) as made:
        functions_everywhere(made, without)
        *_, last = await found(made.url)
    assert last.level is level
    assert last.state.startswith(says)


async def test_a_primary_that_is_not_in_the_url_and_cannot_be_asked() -> None:
    async with scripted_cluster(answer) as made:
        functions_everywhere(made)
        made.more = [("::1", 1)]
        findings = await found(made.url)
    assert [str(each) for each in findings if each.level is Level.FAILED] != []
    assert "redis node [::1]:1" in {each.subject for each in findings}
