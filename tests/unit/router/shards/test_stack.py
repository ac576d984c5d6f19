"""The parts are put together: what is changed reaches who publishes it."""

from collections.abc import Mapping
from typing import Any

import pytest

from libs.common.contracts.events import Row
from libs.common.redis.keys import Keys
from services.router.shards.stack import KEYS, REGISTRY, Shards


class Store:
    async def fetch(
        self, name: str, values: Mapping[str, Any], by: object = None
    ) -> list[Row]:
        return []


class Redis:
    async def call(self, *_: object) -> None:
        return None


async def nothing() -> None:
    pass


@pytest.mark.asyncio
async def test_it_has_a_loop_for_each_part() -> None:
    shards = Shards(Store().fetch, Redis(), (nothing, nothing), Keys("b"))
    loops = list(shards.loops())
    assert len(loops) == 2
    for loop in loops:
        loop.close()
    assert not shards.spending.due
    assert shards.problem() is None
    assert not shards.has_others()


def test_all_that_gateways_get_is_watched() -> None:
    assert {*REGISTRY, *KEYS} == {"provider", "model", "price", "proxy_key", "team"}
