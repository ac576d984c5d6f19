"""The headers of W3C Trace Context, as clients send them and as upstreams get them."""

import pytest

from libs.common.headers import Header
from services.gateway.tracing.trace_context import (
    LONGEST_STATE,
    Parent,
    parent_in,
    with_parent,
    written,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01".encode()


def named(*states: bytes, parent: bytes = VALID) -> Parent | None:
    return parent_in([(b"traceparent", parent), *((b"tracestate", s) for s in states)])


def state_of(*states: bytes) -> str:
    found = named(*states)
    assert found is not None
    return ",".join(f"{key}={value}" for key, value in found.state)


def test_a_valid_parent() -> None:
    assert named() == Parent(int(TRACE, 16), int(SPAN, 16), 1)


@pytest.mark.parametrize(
    "value",
    [
        VALID + b"  ",
        b"01-" + VALID[3:],
        b"cc-" + VALID[3:] + b"-what-the-future-will-be-like",
        VALID[:-2] + b"ff",
    ],
)
def test_other_valid_parents(value: bytes) -> None:
    assert named(parent=value) is not None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        VALID + b"-",
        VALID + b"-more",
        VALID + b"x",
        b"ff-" + VALID[3:],
        b"0-" + VALID[3:],
        VALID.upper(),
        VALID[:-1],
        VALID.replace(TRACE.encode(), b"0" * 32),
        VALID.replace(SPAN.encode(), b"0" * 16),
        VALID.replace(b"-", b"_"),
        VALID.replace(b"4", "\N{FULLWIDTH DIGIT FOUR}".encode()),
        VALID + b"\x00",
        b"x" * 60_000,
    ],
)
def test_invalid_parents(value: bytes) -> None:
    assert named(parent=value) is None


def test_two_parents_are_none() -> None:
    assert parent_in([(b"traceparent", VALID)] * 2) is None
    assert parent_in([]) is None
    assert parent_in([(b"tracestate", b"a=1")]) is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        ([], ""),
        ([b""], ""),
        ([b"a=1"], "a=1"),
        ([b"a=1, b=2 \t"], "a=1,b=2"),
        ([b"a=1", b"b=2"], "a=1,b=2"),  # RFC 9110, section 5.3
        ([b"a=1,,b=2"], "a=1,b=2"),
        ([b"1fw529a3039@dt=FfAA;x:y z"], "1fw529a3039@dt=FfAA;x:y z"),
        # One invalid member makes the list invalid.
        ([b"a=1,b"], ""),
        ([b"a=1,a=2"], ""),
        ([b"A=1"], ""),
        ([b"a=1,b=2=3"], ""),
        ([b"a=\xff"], ""),
        ([b"a=" + b"x" * 257], ""),
        ([b",".join(b"k%d=1" % n for n in range(32))],
         ",".join(f"k{n}=1" for n in range(32))),
        ([b",".join(b"k%d=1" % n for n in range(33))], ""),
    ],
)  # fmt: skip
def test_the_state(states: list[bytes], kept: str) -> None:
    assert state_of(*states) == kept


def test_a_state_that_is_too_long_loses_its_long_members_first() -> None:
    long = b"long=" + b"x" * 200
    short = [b"k%d=%s" % (n, b"v" * 90) for n in range(8)]
    kept = state_of(b",".join([short[0], long, *short[1:]]))
    assert len(kept) <= LONGEST_STATE
    assert kept == b",".join(short[:5]).decode()
    assert state_of(short[0] + b"," + long) == f"{short[0].decode()},{long.decode()}"


def test_what_is_written_is_read_again() -> None:
    state = (("a", "1"), ("b", "2"))
    headers = written(5, 6, sampled=False, state=state)
    assert headers == [
        (b"traceparent", b"00-00000000000000000000000000000005-0000000000000006-00"),
        (b"tracestate", b"a=1,b=2"),
    ]
    assert parent_in(headers) == Parent(5, 6, 0, state)
    sampled = written(5, 6, sampled=True, state=())
    assert parent_in(sampled) == Parent(5, 6, 1)


def test_it_replaces_what_the_client_sent() -> None:
    headers: list[Header] = [
        (b"accept", b"*/*"),
        (b"traceparent", VALID),
        (b"tracestate", b"a=1"),
        (b"traceparent", b"another"),
    ]
    ours: list[Header] = [(b"traceparent", b"ours")]
    assert with_parent(headers, ours) == [headers[0], ours[0]]
    assert len(headers) == 4
