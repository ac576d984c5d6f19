"""Removing the reasoning of an account that is gone."""

import json
from typing import Any

import pytest

from libs.common.bodies.strip_reasoning import without_reasoning

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f"}
REASONING = {"type": "reasoning", "id": "rs_1", "encrypted_content": "x"}


def rewritten(**fields: Any) -> Any:
    body = without_reasoning(json.dumps({"model": "m", **fields}).encode())
    return None if body is None else json.loads(body)


def test_reasoning_and_foreign_ids_go_and_the_rest_stays() -> None:
    assert rewritten(input=[USER, REASONING, CALL], tools=[{"id": "kept"}]) == {
        "model": "m",
        "input": [USER, {k: v for k, v in CALL.items() if k != "id"}],
        "tools": [{"id": "kept"}],
    }


def test_turn_state_goes_and_other_metadata_stays() -> None:
    metadata = {"x-codex-turn-state": "t", "session_id": "s"}
    body = rewritten(input=[USER, REASONING], client_metadata=metadata)
    assert body["client_metadata"] == {"session_id": "s"}
    assert rewritten(input=[USER], client_metadata="odd")["client_metadata"] == "odd"


def test_text_survives_byte_for_byte() -> None:
    text = "é \ud83d 日本 \u2028"
    (item,) = rewritten(input=[{"role": "user", "content": text}])["input"]
    assert item["content"] == text


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"previous_response_id": "resp_1", "input": [REASONING]}, id="chained"
        ),
        pytest.param(
            {"conversation": {"id": "conv_1"}, "input": [REASONING]}, id="conversation"
        ),
        pytest.param(
            {"input": [{"type": "item_reference", "id": "msg_1"}]}, id="by id only"
        ),
        pytest.param(
            {"input": [{"type": "compaction", "encrypted_content": "x"}]},
            id="compacted history",
        ),
        pytest.param({"input": "text"}, id="no items"),
        pytest.param({}, id="no input"),
    ],
)
def test_what_would_lose_more_than_reasoning_is_not_rewritten(
    fields: dict[str, Any],
) -> None:
    assert rewritten(**fields) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b"[" * 100_000])
def test_what_is_no_request_is_not_rewritten(body: bytes) -> None:
    assert without_reasoning(body) is None
