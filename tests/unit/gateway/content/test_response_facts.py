"""Facts read from answers; answers of another shape give none."""

import json

import pytest

from services.gateway.content.response_facts import (
    Facts,
    LargeAnswer,
    read_answer,
    read_beginning,
    read_event,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"usage": 5}',
        b'{"output": {"id": 1}}',
        b'{"id": "resp_\xff"}',
        b'{"id": ' + b"[" * 100_000,
    ],
)
def test_odd_answers_tell_nothing(body: bytes) -> None:
    assert read_answer(body) == Facts()


def test_chat_completions_name_usage_otherwise() -> None:
    facts = read_answer(
        b'{"id":"chatcmpl-1","object":"chat.completion","usage":{"prompt_tokens":3,'
        b'"completion_tokens":4,"total_tokens":7}}'
    )
    assert (facts.input_tokens, facts.output_tokens) == (3, 4)
    assert facts.response_id is None


def test_minted_ids_of_an_answer() -> None:
    facts = read_answer(
        b'{"id":"resp_1","object":"response","conversation":{"id":"conv_1"},'
        b'"output":[{"id":"msg_1"},{"id":"weird"},{}]}'
    )
    assert facts.minted == ("resp_1", "conv_1", "msg_1")


RAN_CODE = (
    b'"output":[{"id":"ci_1","type":"code_interpreter_call","container_id":"cntr_1"},'
    b'{"id":"msg_1","content":[{"type":"output_text","text":"cntr_0","annotations":['
    b'{"type":"container_file_citation","container_id":"cntr_1","file_id":"cfile_1"},'
    b'{"type":"file_path","file_id":"file-1"},{"type":"url_citation"}]}]}]'
)
OF_CODE = ("resp_1", "ci_1", "msg_1", "cntr_1", "cfile_1", "file-1")


def test_objects_that_code_made_are_minted_too() -> None:
    facts = read_answer(b'{"id":"resp_1","object":"response",%b}' % RAN_CODE)
    assert facts.minted == OF_CODE
    event = b'{"type":"response.completed","response":{"id":"resp_1",%b}}' % RAN_CODE
    assert read_event(event)[1].minted == OF_CODE


@pytest.mark.parametrize("event", [False, True])
def test_objects_that_code_made_are_minted_by_large_answers_too(event: bool) -> None:
    text = b'{"text":"%b"},' % (b"x" * 100_000)
    body = b'{"id":"resp_1","object":"response",%b}' % RAN_CODE.replace(
        b'"content":[', b'"content":[' + text
    )
    if event:
        body = b'{"type":"response.completed","response":%b}' % body
    large = LargeAnswer(body, event=event)
    for _ in large.steps():
        pass
    assert large.facts.ids == OF_CODE


def test_an_odd_member_costs_no_object_that_code_made() -> None:
    facts = read_answer(b'{"id":"resp_1","object":"response","usage":5,%b}' % RAN_CODE)
    assert facts.minted == OF_CODE


@pytest.mark.parametrize(
    "odd", [b'{"x":1}', b"[5]", b'[{"annotations":{}}]', b'[{"annotations":[5]}]']
)
def test_odd_content_hides_nothing_else(odd: bytes) -> None:
    answer = (
        b'{"id":"resp_1","object":"response","usage":{"input_tokens":3},'
        b'"output":[{"id":"msg_1","content":%b}]}' % odd
    )
    event = b'{"type":"response.completed","response":%b}' % answer
    kind, of_event = read_event(event)
    assert kind == "response.completed"
    for facts in (read_answer(answer), of_event):
        assert (facts.input_tokens, facts.ids) == (3, ("resp_1", "msg_1"))


def test_what_the_client_said_is_not_minted() -> None:
    """An answer repeats its request."""
    facts = read_answer(
        b'{"id":"resp_1","object":"response","previous_response_id":"resp_2",'
        b'"metadata":{"id":"resp_3","container_id":"cntr_1"},'
        b'"tools":[{"container":"cntr_2","container_id":"cntr_3"}],'
        b'"output":[{"id":"fc_1","arguments":"{\\"container_id\\":\\"cntr_4\\"}"}]}'
    )
    assert facts.minted == ("resp_1", "fc_1")


def test_a_completed_upload_tells_its_file() -> None:
    facts = read_answer(b'{"id":"upload_1","object":"upload","file":{"id":"file-1"}}')
    assert facts.minted == ("upload_1", "file-1")


@pytest.mark.parametrize(
    ("beginning", "minted"),
    [
        (b'{"id":"resp_1","object":"response","x":"', ("resp_1",)),
        (b'{\n  "object": "response",\n  "id": "resp_1"', ("resp_1",)),
        (b'{"metadata":{"id":"resp_2"},"id":"resp_1"', ()),
        (b'{"id":"mine"', ()),
        (b"", ()),
    ],
)
def test_the_beginning_of_a_large_answer_tells_its_id(
    beginning: bytes, minted: tuple[str, ...]
) -> None:
    assert read_beginning(beginning).ids == minted


def test_an_error_body() -> None:
    facts = read_answer(b'{"error":{"message":"no","type":"x","code":"c"}}')
    assert (facts.error_code, facts.error_message) == ("c", "no")


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"error","error":{"code":"c","message":"m"}}',
        b'{"type":"error","code":"c","message":"m"}',
        b'{"type":"response.failed","response":{"error":{"code":"c","message":"m"}}}',
    ],
)
def test_errors_of_events(data: bytes) -> None:
    facts = read_event(data)[1]
    assert (facts.error_code, facts.error_message) == ("c", "m")


# Large answers --------------------------------------------------------------------


def in_steps(data: bytes, *, event: bool = False) -> LargeAnswer:
    large = LargeAnswer(data, event=event)
    for _ in large.steps():
        pass
    return large


USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 12,
}


@pytest.mark.parametrize("size", [10, 20_000, 500_000])
def test_a_large_answer_tells_what_a_small_one_does(size: int) -> None:
    answer = {
        "id": "resp_1", "object": "response", "status": "completed", "model": "m",
        "conversation": {"id": "conv_1"}, "instructions": "x" * size,
        "output": [{"id": "ig_1", "result": "QUJD" * size}, {"id": "msg_1"}, {}],
        "service_tier": "default", "usage": USAGE, "error": None,
    }  # fmt: skip
    data = json.dumps(answer).encode()
    assert in_steps(data).facts == read_answer(data)
    event = json.dumps({"type": "response.completed", "response": answer}).encode()
    large = in_steps(event, event=True)
    assert (large.type, large.facts) == read_event(event)
    assert large.facts.ids == ("resp_1", "conv_1", "ig_1", "msg_1")


@pytest.mark.parametrize("error", ["broken", {"code": "x", "message": "y"}, None])
def test_a_large_error_tells_what_a_small_one_does(error: object) -> None:
    fields = {"type": "error", "code": "c", "message": "m", "error": error}
    event = json.dumps({**fields, "pad": "x" * 100_000}).encode()
    large = in_steps(event, event=True)
    assert (large.type, large.facts) == read_event(event)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"output":[' + b"{}," * 100_000, b"\xff"]
)
def test_what_is_no_large_answer_tells_nothing(data: bytes) -> None:
    assert in_steps(data).facts == Facts()


def test_millions_of_output_items_are_read_in_short_steps() -> None:
    data = b'{"id":"resp_1","object":"response","output":[' + b"{}," * 1_000_000
    large = LargeAnswer(data + b'{"id":"msg_1"}]}')
    assert sum(1 for _ in large.steps()) > len(data) // 20_000
    assert large.facts.ids == ("resp_1", "msg_1")


def test_a_large_answer_tells_the_objects_that_its_output_names() -> None:
    """Their tenant must be able to use them, as after a small answer."""
    note = {"type": "container_file_citation", "container_id": "cntr_2"}
    part = {"type": "output_text", "annotations": [note | {"file_id": "cfile_3"}]}
    answer = {
        "object": "response",
        "output": [
            {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"},
            {"type": "message", "id": "msg_1", "content": [part]},
            {"type": "message", "id": "msg_2", "content": "x" * 300_000},
        ],
        "id": "resp_1",
    }
    large = LargeAnswer(json.dumps(answer).encode())
    for _ in large.steps():
        pass
    assert set(large.facts.ids) >= {
        *("resp_1", "ci_1", "msg_1", "msg_2", "cntr_1", "cntr_2", "cfile_3")
    }
