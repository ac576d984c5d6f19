"""All attacks, and the table of their results."""

from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from tests.attack import limits, mixups, smuggling, splitting
from tests.attack.scene import Attack, Scene, scene
from tests.support.databases.valkey import running_valkey

HEAD = ("| attack | tries | result |", "|---|---|---|")
Runs = Iterator[Coroutine[Any, Any, list[Attack]]]


def runs(at: Scene, answers: int) -> Runs:
    """`answers`: how many to check over HTTP; half as many are checked over sockets."""
    yield mixups.kept(at, answers // 2)
    yield mixups.pipelined(at, answers // 4)
    yield mixups.behind(at, answers // 4)
    yield mixups.unasked(at, answers // 40)
    yield mixups.over_sockets(at, answers // 2)
    yield smuggling.smuggle(at)
    yield splitting.split(at)
    yield limits.exhaust(at)


async def attacked(
    folder: Path, answers: int, seed: int, tell: Callable[[Attack], None]
) -> list[Attack]:
    done: list[Attack] = []
    with running_valkey(folder) as valkey:
        async with scene(valkey, folder, seed) as at:
            for run in runs(at, answers):
                for attack in await run:
                    tell(attack)
                    done.append(attack)
    return done


def table(done: list[Attack]) -> str:
    checked = sum(mixups.judged(attack) for attack in done)
    total = sum(attack.tries for attack in done)
    breaches = sum(len(attack.breaches) for attack in done)
    last = f"| all | {total} | {checked} answers checked, {breaches} breaches |"
    return "\n".join([*HEAD, *(attack.row for attack in done), last])
