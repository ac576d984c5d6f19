"""Facts of answers, and nothing of answers of another shape."""

import pytest

from services.gateway.answers import Facts, read_answer, read_beginning, read_event


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


def test_what_the_client_said_is_not_minted() -> None:
    """An answer repeats what its request held."""
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
