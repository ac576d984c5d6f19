"""Facts of answers, and nothing of answers of another shape."""

import pytest

from services.gateway.answers import Facts, read_answer, read_event


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
