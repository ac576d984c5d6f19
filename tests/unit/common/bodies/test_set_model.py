"""The model is replaced in place: no other byte changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.bodies.hints import read_hints
from libs.common.bodies.set_model import with_model


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"model":"fast"}', b'{"model":"gpt"}', id="alone"),
        pytest.param(
            b' {\n"a":1 , "model" :\t"fast" ,"b":[ ]}\r\n',
            b' {\n"a":1 , "model" :\t"gpt" ,"b":[ ]}\r\n',
            id="space stays",
        ),
        pytest.param(
            b'{"input":[{"model":"fast"}],"model":"fast","x":{"model":"fast"}}',
            b'{"input":[{"model":"fast"}],"model":"gpt","x":{"model":"fast"}}',
            id="the outermost",
        ),
        pytest.param(
            b'{"input":"\\"model\\":\\"fast\\" \\"fast\\"","model":"fast"}',
            b'{"input":"\\"model\\":\\"fast\\" \\"fast\\"","model":"gpt"}',
            id="not in text",
        ),
        pytest.param(b'{"model":"f\\u0061st"}', b'{"model":"gpt"}', id="escaped"),
        pytest.param(
            b'{"m\\u006fdel":"fast","x":["fast"]}',
            b'{"m\\u006fdel":"gpt","x":["fast"]}',
            id="its name escaped",
        ),
        pytest.param(
            b'{"model":"fast","model":"fast"}',
            b'{"model":"fast","model":"gpt"}',
            id="of two the last",
        ),
        pytest.param(
            b'{"model":"model","x":{"model":1}}',
            b'{"model":"gpt","x":{"model":1}}',
            id="named like its name",
        ),
        pytest.param(
            b'{"x":"\\ud83d half","y":"\xff","model":"fast"}',
            b'{"x":"\\ud83d half","y":"\xff","model":"gpt"}',
            id="odd text elsewhere",
        ),
    ],
)
def test_the_value_and_nothing_else(body: bytes, expected: bytes) -> None:
    assert with_model(body, "gpt") == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model"',
        b'{"x":"\\ud83d","model":"fast"',
        b'{"x":"\xff\\ud800","y":' + b"[" * 100_000,
        b'{"a" "\\ud800"}',
    ],
)
def test_what_is_no_body_is_not_spliced(body: bytes) -> None:
    assert with_model(body, "gpt") is None


def test_odd_characters_of_a_model_are_escaped() -> None:
    spliced = with_model(b'{"model":"fast"}', 'a"b\\ü')
    assert spliced is not None
    assert spliced.isascii()
    assert json.loads(spliced) == {"model": 'a"b\\ü'}


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("fast"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", "fast"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    before=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    after=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    ascii_=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_any_document(
    before: dict[str, Any], after: dict[str, Any], ascii_: bool, indent: int | None
) -> None:
    document = {**before, "model": "fast", **after}
    if document["model"] != "fast":
        return
    text = json.dumps(document, ensure_ascii=ascii_, indent=indent)
    body = text.encode("utf-8", "surrogatepass")
    assert read_hints(b"/responses", [], body).model == "fast"
    spliced = with_model(body, "a-longer-name")
    assert spliced is not None
    told = json.loads(spliced.decode("utf-8", "surrogatepass"))
    assert told == {**document, "model": "a-longer-name"}
    assert len(spliced) == len(body) + len("a-longer-name") - len("fast")
