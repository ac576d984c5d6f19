"""Request bodies: hints can be read from every one, and do not depend on the JSON's
layout."""

import json

from hypothesis import given
from hypothesis import strategies as st

from libs.common.bodies.hints import Hints, read_hints
from tests.fuzz.bounds import DAMAGE, FUZZ, damaged, values

KEYS = st.sampled_from(
    ["model", "stream", "previous_response_id", "conversation", "id", "input",
     "prompt_cache_key", "metadata", "client_metadata", "session_id", "session_name",
     "pool_id", "tools", "vector_store_ids", "container", "file_ids", "file_id",
     "content", "encrypted_content", "input_file_id", "background", "type"]
)  # fmt: skip
BODIES = st.dictionaries(KEYS, values(KEYS), max_size=6)
PATHS = st.sampled_from(
    [
        b"/responses",
        b"/responses/resp_1",
        b"/files/file-1/content",
        b"/" * 40,
        b"",
        b"*",
    ]
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"x-session-id", b"x-pool-id", b"session_id", b"x-other"]),
        st.binary(max_size=20),
    ),
    max_size=3,
)


def hints(path: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Hints:
    """The hints of a request; checks their types and limits."""
    found = read_hints(path, headers, body)
    for name in ("model", "session_id", "session_name", "pool_id"):
        text = getattr(found, name)
        assert text is None or isinstance(text, str)
        (text or "").encode()
    assert isinstance(found.stream, bool)
    assert len(found.bound_ids) <= 64
    assert all(0 < len(id_.encode()) <= 2048 for id_ in found.bound_ids)
    return found


@FUZZ
@given(PATHS, HEADERS, st.one_of(BODIES.map(json.dumps).map(str.encode), st.binary()),
       DAMAGE)  # fmt: skip
def test_hints_of_any_body(
    path: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    damage: list[tuple[int, int, bytes]],
) -> None:
    hints(path, headers, damaged(body, damage))


@FUZZ
@given(PATHS, BODIES)
def test_layout_and_order_change_nothing(path: bytes, body: dict[str, object]) -> None:
    plain = hints(path, [], json.dumps(body).encode())
    laid_out = json.dumps(body, indent=3, ensure_ascii=False)
    turned = json.dumps(dict(reversed(body.items())), separators=(",", ":"))
    assert hints(path, [], laid_out.encode(errors="surrogatepass")) == plain
    assert hints(path, [], turned.encode()) == plain


@FUZZ
@given(BODIES, st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "latin-1"]))
def test_other_encodings_are_read_or_not_at_all(
    body: dict[str, object], encoding: str
) -> None:
    hints(b"/responses", [], json.dumps(body).encode(encoding))
