"""Parsing create requests."""

from typing import Any

import pytest

from libs.simulator.api.create_request import (
    bound_ids,
    file_ids,
    input_items,
    item_text,
    parse,
)
from libs.simulator.api.errors import ApiError


def ask_of(**body: Any) -> Any:
    return parse({"model": "gpt-5.5", **body})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({}, "model", id="no model"),
        pytest.param({"model": 5}, "model", id="model is a number"),
        pytest.param({"model": "m", "input": 5}, "input", id="input is a number"),
        pytest.param({"model": "m", "input": ["x"]}, "input", id="item is a string"),
        pytest.param(
            {"model": "m", "previous_response_id": "resp é"},
            "previous_response_id",
            id="charset",
        ),
        pytest.param(
            {"model": "m", "previous_response_id": "resp_1", "conversation": "conv_1"},
            "previous_response_id",
            id="two histories",
        ),
        pytest.param(
            {"model": "m", "background": True, "store": False},
            "background",
            id="background without store",
        ),
    ],
)
def test_a_bad_field_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(body)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("value", "count"),
    [(None, 0), ("hi", 1), ([{"type": "message"}, {"type": "reasoning"}], 2)],
)
def test_input_becomes_items(value: Any, count: int) -> None:
    assert len(input_items(value)) == count


@pytest.mark.parametrize("given", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_named_by_id_or_object(given: Any) -> None:
    assert ask_of(conversation=given).conversation_id == "conv_1"


@pytest.mark.parametrize(
    ("body", "name", "expected"),
    [
        ({}, "store", True),
        ({"store": False}, "store", False),
        ({"include": ["reasoning.encrypted_content"]}, "wants_reasoning", True),
        ({"include": None}, "wants_reasoning", False),
        ({"input": [{"type": "compaction_trigger"}]}, "compacts", True),
        ({"input": "hi"}, "compacts", False),
        ({"generate": False}, "warms_up", True),
        ({}, "warms_up", False),
        ({}, "obfuscates", True),
        ({"stream_options": {"include_obfuscation": False}}, "obfuscates", False),
    ],
)
def test_what_is_asked_for(body: dict[str, Any], name: str, *, expected: bool) -> None:
    assert getattr(ask_of(**body), name) is expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [({"n": "12"}, 12), ({"n": "x"}, 7), ({}, 7), (None, 7)],
)
def test_numbers_come_from_metadata(metadata: Any, expected: int) -> None:
    assert ask_of(metadata=metadata).number("n", 7) == expected


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"content": "a"}, "a"),
        ({"content": [{"text": "a"}, {"text": "b"}, {"image_url": "x"}]}, "a b"),
        ({"type": "function_call", "arguments": "{}"}, "{}"),
        ({"type": "function_call_output", "output": "ok"}, "ok"),
        ({"type": "reasoning", "encrypted_content": "gAAAA"}, ""),
    ],
)
def test_the_text_of_an_item(item: dict[str, Any], text: str) -> None:
    assert item_text(item) == text


@pytest.mark.parametrize(
    ("item", "found"),
    [
        ({"content": "file-1"}, []),
        ({"content": [{"file_id": "file-1"}, {"text": "a"}, "b"]}, ["file-1"]),
        ({"output": [{"file_id": "file-1"}, {"file_id": None}]}, ["file-1"]),
        ({"output": "file-1"}, []),
    ],
)
def test_the_files_an_item_names(item: dict[str, Any], found: list[str]) -> None:
    assert list(file_ids(item)) == found


@pytest.mark.parametrize(
    ("tools", "found"),
    [
        (None, []),
        ("file_search", []),
        (["file_search", {"type": "web_search"}], []),
        ([{"vector_store_ids": ["vs_1", "vs_2", 3]}], ["vs_1", "vs_2"]),
        ([{"vector_store_ids": "vs_1"}], []),
        ([{"container": "cntr_1"}], ["cntr_1"]),
        ([{"container": {"type": "auto", "file_ids": ["file-1"]}}], ["file-1"]),
        ([{"environment": {"container_id": "cntr_1"}}], ["cntr_1"]),
        ([{"input_image_mask": {"file_id": "file-1"}}], ["file-1"]),
    ],
)
def test_the_objects_tools_work_on(tools: Any, found: list[str]) -> None:
    assert list(bound_ids(tools)) == found
