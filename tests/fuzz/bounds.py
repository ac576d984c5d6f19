"""How long to fuzz. The normal suite uses the same few examples every time; `make fuzz`
uses new and more examples."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
FUZZ = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
# Where to cut the bytes that are sent; modulo their length.
CUTS = st.lists(st.integers(0, 1 << 16), max_size=40)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["resp_1", "msg_1", "file-1", "response", "error", "a\0b", "😀"]),
)


def values(keys: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    """JSON values whose objects have these keys, of every type; few are valid."""
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)
        ),
        max_leaves=12,
    )


def damaged(data: bytes, damage: list[tuple[int, int, bytes]]) -> bytes:
    """`data` with pieces replaced: position, length and replacement."""
    for place, length, piece in damage:
        at = place % (len(data) + 1)
        data = data[:at] + piece + data[at + length :]
    return data


DAMAGE = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 6), st.binary(max_size=6)),
    max_size=3,
)
