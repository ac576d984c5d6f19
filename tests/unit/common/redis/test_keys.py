"""Names of Redis keys."""

import inspect
from collections.abc import Callable

import pytest

from libs.common.redis import keys

OF_STREAMS = {"dead_letters", "payloads"}  # beside the stream that is configured
FUNCTIONS: dict[str, Callable[..., str]] = {
    name: function
    for name, function in inspect.getmembers(keys, inspect.isfunction)
    if function.__module__ == keys.__name__ and function is not keys.has_tag
}


def named(name: str, argument: str) -> str:
    function = FUNCTIONS[name]
    return function(*(argument for _ in inspect.signature(function).parameters))


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - OF_STREAMS))
def test_every_routing_key_has_the_one_hash_tag(name: str) -> None:
    assert named(name, "x").startswith("{rpx}:")


def test_no_two_keys_have_one_name() -> None:
    made = [named(name, "x") for name in FUNCTIONS]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    "name", sorted(n for n, f in FUNCTIONS.items() if inspect.signature(f).parameters)
)
def test_a_key_tells_whose_it_is(name: str) -> None:
    assert named(name, "one") != named(name, "two")


@pytest.mark.parametrize("stream", ["telemetry:events", "{rpx}:events"])
def test_streams_beside_the_telemetry_stream_share_its_slot(stream: str) -> None:
    assert keys.dead_letters(stream) == f"{stream}:dead"
    assert keys.payloads(stream) == f"{stream}:payloads"
