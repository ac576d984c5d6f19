"""Responses and their events: order, numbers, shape; parsed by openai-python."""

from functools import cache
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from libs.simulator.api.answers import (
    Fate,
    outputs,
    pending,
    response_object,
    spoiled,
    usage,
)
from libs.simulator.api.create_request import parse
from libs.simulator.api.events import (
    events_of,
    is_terminal,
    with_error,
    with_metadata,
)
from libs.simulator.state.ids import Mint
from libs.simulator.state.threads import Thread
from libs.simulator.wire import encode, sse_frame

MINT = Mint("acct-1")
ADD = {
    "type": "function",
    "name": "add",
    "strict": True,
    "parameters": {"type": "object", "properties": {}},
}

TEXT = """created in_progress output_item.added content_part.added output_text.delta
 output_text.done content_part.done output_item.done completed"""
REASONED = """created in_progress output_item.added output_item.done output_item.added
 content_part.added output_text.delta output_text.done content_part.done
 output_item.done completed"""
CALLED = """created in_progress output_item.added function_call_arguments.delta
 function_call_arguments.done output_item.done completed"""
CUSTOM = """created in_progress output_item.added custom_tool_call_input.delta
 custom_tool_call_input.done output_item.done completed"""
COMPACTED = "created in_progress output_item.added output_item.done completed"


@cache
def openai_events() -> TypeAdapter[Any]:
    """Built by the first test that needs it: it takes half a second, which collecting
    the tests should not."""
    return TypeAdapter(ResponseStreamEvent)


def finished(**body: Any) -> dict[str, Any]:
    ask = parse({"model": "gpt-5.5", "input": "hello there", **body})
    thread = Thread().offering(body.get("tools")).extended(ask.items)
    items = outputs(ask, thread, MINT)
    return response_object(ask, "resp_1", items, usage(thread, items, 1), 1e9)


def kinds(events: Any) -> str:
    """Event types in order, runs of the same type once, without the prefix."""
    names: list[str] = []
    for event in events:
        name = event["type"].removeprefix("response.")
        if not names or names[-1] != name:
            names.append(name)
    return " ".join(names)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({}, TEXT, id="text"),
        pytest.param(
            {"include": ["reasoning.encrypted_content"]}, REASONED, id="reasoning"
        ),
        pytest.param({"tools": [ADD], "tool_choice": "required"}, CALLED, id="call"),
        pytest.param(
            {"tools": [{"type": "custom", "name": "x"}], "input": "run-tool"},
            CUSTOM,
            id="custom tool",
        ),
        pytest.param(
            {"input": [{"type": "compaction_trigger"}]}, COMPACTED, id="compaction"
        ),
        pytest.param(
            {"generate": False}, "created in_progress completed", id="warm-up"
        ),
        pytest.param(
            {"background": True},
            TEXT.replace("created", "created queued", 1),
            id="background",
        ),
    ],
)
def test_events_come_in_the_services_order(body: dict[str, Any], expected: str) -> None:
    events = list(events_of(finished(**body), lambda: "pad"))
    assert kinds(events) == " ".join(expected.split())
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [is_terminal(event) for event in events].index(True) == len(events) - 1
    for event in events:
        openai_events().validate_json(encode(event))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("queued", "created queued"),
        ("in_progress", "created queued in_progress"),
        ("cancelled", "created queued in_progress"),
    ],
)
def test_a_background_response_shows_the_events_so_far(
    status: str, expected: str
) -> None:
    response = pending(finished(background=True), status)
    assert kinds(events_of(response)) == expected


def test_the_deltas_add_up_to_the_text() -> None:
    response = finished(input="some  words\nand more ")
    text = response["output"][0]["content"][0]["text"]
    deltas = [event.get("delta", "") for event in events_of(response)]
    assert "".join(deltas) == text
    assert text.startswith("Simulated answer from acct-1: ")


@pytest.mark.parametrize("padded", [True, False])
def test_deltas_are_obfuscated_when_asked(*, padded: bool) -> None:
    events = events_of(finished(), (lambda: "abc") if padded else None)
    deltas = [event for event in events if event["type"].endswith("delta")]
    assert deltas
    assert all(
        event.get("obfuscation") == ("abc" if padded else None) for event in deltas
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"type": "json_object"},
            '{"answer":"Simulated answer from acct-1: hello there"}',
        ),
        (
            {
                "type": "json_schema",
                "schema": {
                    "type": "object",
                    "properties": {"n": {"type": "integer"}, "o": {"enum": ["x", "y"]}},
                    "required": ["n", "o"],
                },
            },
            '{"n":1,"o":"x"}',
        ),
    ],
)
def test_structured_answers_have_the_asked_shape(body: Any, text: str) -> None:
    response = finished(text={"format": body})
    assert response["output"][0]["content"][0]["text"] == text


def test_the_response_has_every_field_the_sdk_requires() -> None:
    response = Response.model_validate(finished(metadata={"a": "b"}, store=False))
    assert response.usage is not None
    assert response.usage.input_tokens == 3
    assert response.usage.input_tokens_details.cached_tokens == 1
    assert response.metadata == {"a": "b"}
    assert response.store is False  # type: ignore[attr-defined]


def test_a_failed_response_carries_the_error_and_nothing_else() -> None:
    response = spoiled(finished(), Fate("failed", "rate_limit_exceeded", "wait"))
    assert kinds(events_of(response)) == "created in_progress failed"
    assert response["error"] == {"code": "rate_limit_exceeded", "message": "wait"}
    assert response["usage"] is None


def test_an_incomplete_response_keeps_its_output_and_usage() -> None:
    response = spoiled(finished(), Fate("incomplete", "max_output_tokens"))
    assert kinds(events_of(response)).endswith(" incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"]
    assert response["usage"]


def test_an_error_event_breaks_the_stream_off() -> None:
    events = list(with_error(events_of(finished()), {"code": "server_error"}))
    assert kinds(events) == "created in_progress error"
    assert events[-1]["sequence_number"] == 2
    assert is_terminal(events[-1])


def test_metadata_follows_the_first_event_and_has_no_number() -> None:
    events = list(with_metadata(events_of(finished()), "resp_1", {"x-a": "1"}))
    assert kinds(events).startswith("created metadata in_progress")
    assert events[1] == {
        "type": "response.metadata",
        "response_id": "resp_1",
        "headers": {"x-a": "1"},
    }
    numbered = [e["sequence_number"] for e in events if "sequence_number" in e]
    assert numbered == list(range(len(events) - 1))


def test_a_frame_is_event_data_and_a_blank_line() -> None:
    frame = sse_frame({"type": "error", "sequence_number": 1})
    assert frame == b'event: error\ndata: {"type":"error","sequence_number":1}\n\n'


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("auto", False),
        ("required", True),
        ("none", False),
        ({"type": "function"}, True),
    ],
)
def test_a_tool_choice_forces_or_forbids_the_call(choice: Any, *, called: bool) -> None:
    response = finished(tools=[ADD], tool_choice=choice)
    assert (response["output"][0]["type"] == "function_call") is called
