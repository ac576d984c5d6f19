"""Limits per minute of proxy keys, as Redis counts them."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis as PlainRedis

from services.router.function_library import LIBRARY
from tests.support.databases import function_keys
from tests.support.values.telemetry import T0_MS

pytestmark = pytest.mark.asyncio


@pytest.fixture
def counting(valkey: str) -> Iterator[Any]:
    """A plain client of a Redis with the library, for many short histories."""
    with PlainRedis.from_url(valkey) as client:
        client.execute_command("FUNCTION", "LOAD", LIBRARY)
        yield client


MINUTE = 60_000
# Where the end of a minute and of a slot coincide.
LEAPS = st.sampled_from([4_999, 5_000, 20_000, 55_000, 57_500, 59_999, 60_000])
_ids = count()


def ask(client: Any, key: str, now: int, requests: Any = "", tokens: Any = "") -> Any:
    reply = client.fcall(
        "rpx_limits_v1", 1, function_keys.spent(key), key, requests, tokens, now
    )
    return (reply[0].decode(), reply[1]) if reply else None


def spend(client: Any, key: str, now: int, tokens: int) -> None:
    client.fcall("rpx_spend_v1", 1, function_keys.spent(key), key, tokens, now)


class TestLimits:
    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        limit=st.integers(1, 12),
        gaps=st.lists(
            st.one_of(st.integers(0, 40), st.integers(0, 9_000), LEAPS), max_size=120
        ),
    )
    async def test_no_minute_holds_more_requests_than_the_limit(
        self, counting: Any, limit: int, gaps: list[int]
    ) -> None:
        key, now = f"p{next(_ids)}", T0_MS
        admitted: list[int] = []
        for gap in gaps:
            now += gap
            refused = ask(counting, key, now, limit)
            if refused is None:
                admitted.append(now)
                window = [at for at in admitted if now - at < MINUTE]
                assert len(window) <= limit
            else:
                which, wait = refused
                assert (which, 0 < wait <= 65_000) == ("requests", True)
                # Never refused without need: 65 s cover the limit.
                assert sum(now - at < 65_000 for at in admitted) >= limit

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        limit=st.integers(1, 1000),
        answers=st.lists(
            st.tuples(st.one_of(st.integers(0, 9_000), LEAPS), st.integers(0, 400)),
            max_size=60,
        ),
    )
    async def test_a_request_begins_only_below_the_limit_of_tokens(
        self, counting: Any, limit: int, answers: list[tuple[int, int]]
    ) -> None:
        key, now = f"t{next(_ids)}", T0_MS
        spent: list[tuple[int, int]] = []
        for gap, tokens in answers:
            now += gap
            if ask(counting, key, now, tokens=limit) is None:
                assert sum(n for at, n in spent if now - at < MINUTE) < limit
                spend(counting, key, now, tokens)
                spent.append((now, tokens))
            else:
                assert sum(n for at, n in spent if now - at < 65_000) >= limit

    async def test_the_time_to_wait_is_exact(self, counting: Any) -> None:
        key = f"w{next(_ids)}"
        for at in (0, 7_000, 14_000):
            assert ask(counting, key, T0_MS + at, 3) is None
        _, wait = ask(counting, key, T0_MS + 20_000, 3)
        back = T0_MS + 20_000 + wait
        assert ask(counting, key, back - 1, 3) == ("requests", 1)
        assert ask(counting, key, back, 3) is None
        assert MINUTE < back - T0_MS <= 65_000

    async def test_a_lowered_limit_waits_for_more_than_one(self, counting: Any) -> None:
        key = f"w{next(_ids)}"
        for at in (0, 10_000, 20_000):
            assert ask(counting, key, T0_MS + at, 3) is None
        _, wait = ask(counting, key, T0_MS + 20_000, 1)
        assert ask(counting, key, T0_MS + 20_000 + wait, 1) is None

    async def test_what_is_refused_is_not_counted(self, counting: Any) -> None:
        key = f"n{next(_ids)}"
        assert ask(counting, key, T0_MS, 1) is None
        for step in range(1, 60):  # a client that tries each second
            assert ask(counting, key, T0_MS + step * 1000, 1) is not None
        assert ask(counting, key, T0_MS + 65_000, 1) is None

    async def test_a_limit_on_tokens_spares_the_one_on_requests(
        self, counting: Any
    ) -> None:
        key = f"b{next(_ids)}"
        spend(counting, key, T0_MS, 100)
        for _ in range(5):
            which, _ = ask(counting, key, T0_MS, 5, 100)
            assert which == "tokens"
        assert all(ask(counting, key, T0_MS, 5, 101) is None for _ in range(5))
        assert ask(counting, key, T0_MS, 5, 101)[0] == "requests"

    async def test_a_clock_that_steps_back_frees_nobody(self, counting: Any) -> None:
        key = f"c{next(_ids)}"
        assert ask(counting, key, T0_MS, 1) is None
        _, wait = ask(counting, key, T0_MS - 30_000, 1)
        assert wait > 60_000

    async def test_what_is_not_limited_leaves_no_trace(self, counting: Any) -> None:
        key = f"u{next(_ids)}"
        assert ask(counting, key, T0_MS) is None
        spend(counting, key, T0_MS, 0)
        assert not counting.exists(function_keys.spent(key))

    async def test_counts_are_forgotten_when_they_no_longer_count(
        self, counting: Any
    ) -> None:
        key = f"f{next(_ids)}"
        ask(counting, key, T0_MS, 5)
        assert 60_000 < counting.pttl(function_keys.spent(key)) <= 65_000
