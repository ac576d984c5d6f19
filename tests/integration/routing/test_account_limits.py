"""Four keys of two accounts, one of which is at its token limit: requests go to the
other one. The limited account is asked once a second and model, so that the gateway
notices when it serves again. The same without PROXY_LIMIT_AWARE."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from libs.simulator.state.rates import Asked, Rate
from tests.support.clients.raw import calling, post
from tests.support.databases.valkey import empty
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]
MODELS = ("gpt-5.5", "gpt-5.5-mini")
LIMITED = "acct-a"
# Pauses let the run last for several intervals on a fast machine, too.
REQUESTS, CLIENTS, PAUSE_S = 2_000, 16, 0.02
# A request takes a little more than LONGEST tokens: the account serves one of each
# model in a second.
LONGEST, REFILL_PER_S = 400, 430
INTERVAL_S = 1.0  # between two attempts there
CLOCKS_S = 0.05  # by which the clocks of two processes may differ


@dataclass(frozen=True)
class Run:
    """What one gateway did."""

    aware: bool
    seconds: float
    statuses: Counter[int]
    attempts: int
    refused: int  # attempts that the limited account answered with 429
    asked: int  # all attempts there
    closest_s: float  # between two of them for one model, once it is known
    early_s: float  # by which any of them came too early, at most
    longest_s: float  # that a request took


def limit(stack: Stack) -> None:
    for model in MODELS:
        stack.simulator.state.rates.limit(
            Rate(LIMITED, model, tokens=1_000, level=0, refill_per_s=REFILL_PER_S)
        )


async def ask_all(stack: Stack) -> tuple[Counter[int], float]:
    """The statuses, and the seconds of the slowest request."""
    statuses: Counter[int] = Counter()
    longest = 0.0
    left = iter(range(REQUESTS))
    bodies = [
        json.dumps({"model": model, "input": "x", "max_output_tokens": LONGEST})
        for model in MODELS
    ]

    async def client() -> None:
        nonlocal longest
        async with calling(stack.origin) as caller:
            for number in left:
                began = time.monotonic()
                await caller.send(post(bodies[number % 2].encode()))
                statuses[(await caller.reply()).status] += 1
                longest = max(longest, time.monotonic() - began)
                await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return statuses, longest


def once_known(asked: list[Asked], longest_s: float) -> list[Asked]:
    """The attempts that were chosen after the limit was known. The first one
    tells it when it ends; others that were chosen until then arrive within the time
    that a request takes."""
    return [each for each in asked if each.at > asked[0].at + 2 * longest_s]


def early(asked: list[Asked]) -> float:
    """The seconds by which an attempt that was refused came too early after any one
    before it. One that was served was right to come: on a slow machine attempts are
    later than a second, and the account saves tokens for another one."""
    return max(
        (
            (j - i) * INTERVAL_S - (late.at - soon.at)
            for (i, soon), (j, late) in combinations(enumerate(asked), 2)
            if not late.served
        ),
        default=0.0,
    )


async def run(valkey: str, folder: Path, *, aware: bool) -> Run:
    empty(valkey)
    settings = {"PROXY_LIMIT_AWARE": str(aware).lower()}
    async with gateway_stack(valkey, folder, **settings) as stack:
        limit(stack)
        began = time.monotonic()
        statuses, longest = await ask_all(stack)
        seconds = time.monotonic() - began

        async def settled() -> bool:
            return await stack.in_flight() == 0

        await eventually(settled)
        state = stack.simulator.state
        attempts = state.journal.stats()["arrived"]
        asked = [state.rates.asked(LIMITED, model) for model in MODELS]
        known = [once_known(there, longest) for there in asked]
    return Run(
        aware,
        seconds,
        statuses,
        attempts,
        sum(not each.served for there in asked for each in there),
        sum(map(len, asked)),
        min(
            (b.at - a.at for there in known for a, b in pairwise(there)),
            default=float("inf"),
        ),
        max(map(early, known)),
        longest,
    )


async def test_a_limited_account_is_asked_once_a_second(
    valkey: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = [
        await run(valkey, tmp_path_factory.mktemp("gateway"), aware=aware)
        for aware in (True, False)
    ]
    print("\nPROXY_LIMIT_AWARE  seconds  failed  attempts  to A  429s  closest")  # noqa: T201
    for found in runs:
        failed = found.statuses.total() - found.statuses[200]
        print(  # noqa: T201
            f"{found.aware!s:17}{found.seconds:9.1f}{failed:8}{found.attempts:10}"
            f"{found.asked:6}{found.refused:6}{found.closest_s:8.2f}s"
        )
    aware, unaware = runs
    assert aware.statuses == {200: REQUESTS}
    assert aware.asked > 2 * len(MODELS)  # so that times are of several
    # It is chosen once a second; on a busy machine an attempt may arrive late, and the
    # next one in time.
    assert aware.early_s <= aware.longest_s + CLOCKS_S < unaware.early_s
    assert aware.attempts - REQUESTS == aware.refused < unaware.refused
