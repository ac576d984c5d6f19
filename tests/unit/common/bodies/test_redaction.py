"""Values named by PROXY_REDACT are removed, whatever their shape."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.bodies.redaction import (
    ANY,
    BadPath,
    JsonPath,
    Redactor,
    Unreadable,
    parse_paths,
)

SECRET = "SECRET"  # noise has no capitals


def redactor(paths: str) -> Redactor:
    return Redactor(parse_paths(paths))


def redacted(paths: str, document: Any) -> Any:
    return json.loads(redactor(paths).document(json.dumps(document).encode()))


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "paths"),
        [
            ("", ()),
            ("instructions", (("instructions",),)),
            (" a , b.c ,", (("a",), ("b", "c"))),
            ("input[*].content", (("input", ANY, "content"),)),
            ("a[0][*].*.b", (("a", 0, ANY, ANY, "b"),)),
            ("[*].text", ((ANY, "text"),)),
        ],
    )
    def test_are_read(self, text: str, paths: tuple[JsonPath, ...]) -> None:
        assert parse_paths(text) == paths

    @pytest.mark.parametrize(
        "text", ["a..b", "a.", ".a", "a[", "a[x]", "a[-1]", "a[*", "a b", "[]"]
    )
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(BadPath):
            parse_paths(text)

    def test_there_are_not_too_many(self) -> None:
        with pytest.raises(BadPath, match="more than 100"):
            parse_paths(",".join(f"a{n}" for n in range(101)))


# path, document, document after redaction
DOCUMENTS = {
    "a member": ("a", {"a": "x", "b": 1}, {"a": "[redacted]", "b": 1}),
    "whole subtrees": ("a", {"a": {"b": [1]}}, {"a": "[redacted]"}),
    "one item": ("a[1]", {"a": [1, 2]}, {"a": [1, "[redacted]"]}),
    "every item": ("a[*].b", {"a": [{"b": 1}, {"c": 2}]},
                   {"a": [{"b": "[redacted]"}, {"c": 2}]}),
    "every member": ("a.*", {"a": {"x": 1, "y": 2}},
                     {"a": {"x": "[redacted]", "y": "[redacted]"}}),
    "items without being told": ("a.b", {"a": [{"b": 1}]},
                                 {"a": [{"b": "[redacted]"}]}),
    "a string where a list is usual": ("input[*].content", {"input": "hi"},
                                       {"input": "[redacted]"}),
    "an object where a list is usual": ("a[0]", {"a": {"b": 1}},
                                        {"a": "[redacted]"}),
    "a number where an object is usual": ("a.b", {"a": 7}, {"a": "[redacted]"}),
    "nothing where there is nothing": ("a.b", {"a": None, "c": {}},
                                       {"a": None, "c": {}}),
    "what the answer repeats": ("instructions", {"response": {"instructions": "x"}},
                                {"response": {"instructions": "[redacted]"}}),
    "a bare string": ("a", "x", "[redacted]"),
    "integers beyond 64 bits stay": ("a", {"b": 2**70}, {"b": 2**70}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "document", "left"), DOCUMENTS.values(), ids=DOCUMENTS
)
def test_a_document(path: str, document: Any, left: Any) -> None:
    assert redacted(path, document) == left


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"a":1', b"a=SECRET", b"\xff", b'{"a":"\xff"}', b"NaN", b"[" * 100_000,
     b'{"a":1} {"a":2}', b"\xef\xbb\xbf{}", b'{"a":"\\ud800"}'],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable):
        redactor("a").document(body)


def test_the_last_of_two_members_of_one_name_does_not_hide_the_first() -> None:
    assert SECRET.encode() not in redactor("a").document(b'{"a":"SECRET","a":"x"}')


EVENTS = {
    "an event's own member": (
        "delta", b'event: x\ndata: {"delta":"SECRET"}\n\n',
        b'event: x\ndata: {"delta":"[redacted]"}\n\n'),
    "data over several lines": (
        "a", b'data: {"a":\ndata: "SECRET"}\n\n', b'data: {"a":"[redacted]"}\n\n'),
    "carriage returns": (
        "a", b'data: {"a":"SECRET"}\r\n\r\ndata: {"a":"SECRET"}\r\r',
        b'data: {"a":"[redacted]"}\n\n' * 2),
    "data that is no JSON": ("a", b"data: SECRET\n\n", b"data: [redacted]\n\n"),
    "the end of a chat": ("a", b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
    "comments and unknown fields": (
        "a", b": SECRET\nfoo: SECRET\ndata: {}\n\n", b"data: {}\n\n"),
    "a cut event": ("a", b'data: {"b":1}\n\ndata: {"a":"SECRE', b'data: {"b":1}\n\n'),
    "an event that never ended": ("a", b'data: {"a":"SECRET"}\n', b""),
    "text that streams by": (
        "output[*].content",
        b'data: {"type":"x.delta","output_index":0,"delta":"SECRET"}\n\n',
        b'data: {"type":"x.delta","output_index":0,"delta":"[redacted]"}\n\n'),
    "unless the output is not meant": (
        "input", b'data: {"output_index":0,"delta":"hi"}\n\n',
        b'data: {"output_index":0,"delta":"hi"}\n\n'),
}  # fmt: skip


@pytest.mark.parametrize(("path", "stream", "left"), EVENTS.values(), ids=EVENTS)
def test_a_stream(path: str, stream: bytes, left: bytes) -> None:
    assert redactor(path).events(stream) == left


def test_lines_of_a_socket() -> None:
    lines = b'{"a":"SECRET"}\n{"response":{"a":"SECRET"}}\n{"a":"SECR'
    assert redactor("a").lines(lines) == (
        b'{"a":"[redacted]"}\n{"response":{"a":"[redacted]"}}\n'
    )


def test_a_broken_line_of_a_socket_is_refused() -> None:
    with pytest.raises(Unreadable):
        redactor("a").lines(b'{"a":"SECR\n{}\n')


# Documents with secrets at every place that a path may match ----------------------

NAMES = st.sampled_from(["input", "content", "text", "a", "response", "output"])
STEPS = st.one_of(NAMES, st.just(ANY), st.integers(0, 2))
PATHS = st.tuples(NAMES, st.lists(STEPS, max_size=3)).map(lambda p: (p[0], *p[1]))
NOISE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc é\u2028\n", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def leading_to_a_secret(draw: st.DrawFn, path: JsonPath) -> Any:
    """A value in which `path` leads to a secret: at its end, or wherever a document of
    another shape ends earlier."""
    if not path or draw(st.integers(0, 9)) == 0:
        nested = draw(st.sampled_from([SECRET, [SECRET], {"q": SECRET}]))
        return nested if not path else SECRET
    step, rest = path[0], path[1:]
    inner = leading_to_a_secret(rest)
    if isinstance(step, int):
        items = [draw(NOISE) for _ in range(step)]
        return [*items, draw(inner), draw(NOISE)]
    if step == ANY and draw(st.booleans()):
        return [draw(inner) for _ in range(draw(st.integers(1, 2)))]
    name = draw(NAMES) if step == ANY else step
    found = {**draw(st.dictionaries(st.text("xyz"), NOISE, max_size=2))}
    found[name] = draw(inner)
    return found if draw(st.booleans()) or step == ANY else [found]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[JsonPath], list[Any]]:
    paths = draw(st.lists(PATHS, min_size=1, max_size=3))
    documents = [draw(leading_to_a_secret(draw(st.sampled_from(paths))))
                 for _ in range(draw(st.integers(1, 3)))]  # fmt: skip
    if draw(st.booleans()):
        documents = [
            {"type": "response.completed", "response": document}
            for document in documents
            if document != SECRET  # a response is never a mere string
        ]
    return paths, documents


def spelled(value: Any, *, escaped: bool) -> str:
    """JSON in which any character may be escaped."""
    if isinstance(value, str) and escaped:
        return '"' + "".join(f"\\u{ord(c):04x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(spelled(v, escaped=escaped) for v in value)}]"
    if isinstance(value, dict):
        members = (
            f"{spelled(k, escaped=escaped)}:{spelled(v, escaped=escaped)}"
            for k, v in value.items()
        )
        return f"{{{','.join(members)}}}"
    return json.dumps(value)


@given(case=cases(), escaped=st.booleans(), ending=st.sampled_from(["\n", "\r\n"]))
def test_no_secret_is_left(
    case: tuple[list[JsonPath], list[Any]], escaped: bool, ending: str
) -> None:
    paths, documents = case
    texts = [spelled(document, escaped=escaped) for document in documents]
    redact = Redactor(tuple(paths))
    stream = "".join(f"data: {text}{ending}{ending}" for text in texts).encode()
    lines = "".join(f"{text}\n" for text in texts).encode()
    results = [redact.events(stream), redact.lines(lines)]
    results += [redact.document(text.encode()) for text in texts]
    for result in results:
        assert SECRET.encode() not in result
        assert SECRET.encode() not in json.dumps(result.decode()).encode()


@given(case=cases(), at=st.integers(0, 400))
def test_no_secret_is_left_of_a_stream_that_is_cut(
    case: tuple[list[JsonPath], list[Any]], at: int
) -> None:
    paths, documents = case
    redact = Redactor(tuple(paths))
    stream = "".join(f"data: {json.dumps(d)}\n\n" for d in documents).encode()
    lines = "".join(f"{json.dumps(d)}\n" for d in documents).encode()
    for result in (redact.events(stream[:at]), redact.lines(lines[:at])):
        assert b"SEC" not in result
