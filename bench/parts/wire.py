"""The request, answer and stream of a benchmark. The load and the upstream share them,
so that both know when an answer is complete."""

import json

EVENTS = 50
GAP_S = 0.01
PACED = b'"pace":"slow"'
HELD = b'"pace":"held"'
UNIQUE = b'"pace":"unique"'  # the answer has ids of its own
STREAMED = b'"stream":true'
HEAD_END = b"\r\n\r\n"
KEY = "rpx_bench-0123456789abcdefghijklmnopqrstuvwxyz-0123"
STREAM_END = b"0\r\n\r\n"


def request(
    target: str,
    session: str,
    *,
    streamed: bool = False,
    pace: str = "none",
    key: str = KEY,
) -> bytes:
    """A request of about 1 KB, as an agent sends it. `target` is host:port; `pace` is
    none or unique, of a stream also slow, or held (nothing follows the first event)."""
    body = {
        "model": "gpt-5",
        "stream": streamed,
        "metadata": {"pace": pace},
        "instructions": "You are a careful assistant.",
        "input": [{"role": "user", "content": "word " * 165}],
        "store": False,
    }
    data = json.dumps(body, separators=(",", ":")).encode()
    head = (
        "POST /v1/responses HTTP/1.1\r\n"
        f"host: {target}\r\n"
        "user-agent: bench/1\r\naccept: */*\r\n"
        "content-type: application/json\r\n"
        f"authorization: Bearer {key}\r\n"
        f"session-id: {session}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def answer_body() -> bytes:
    """A JSON answer of about 2 KB with its usage."""
    return _compact(_response("completed", "word " * 260))


def stream_events() -> list[bytes]:
    """The frames of a stream, `EVENTS` in total, the last one terminal."""
    events = [_event("response.created", 0, response=_response("in_progress", ""))]
    events.extend(
        _event(
            "response.output_text.delta",
            number,
            item_id="msg_bench",
            output_index=0,
            content_index=0,
            delta="some words ",
        )
        for number in range(1, EVENTS - 1)
    )
    done = _response("completed", "some words " * (EVENTS - 2))
    events.append(_event("response.completed", EVENTS - 1, response=done))
    return events


def _event(kind: str, number: int, **rest: object) -> bytes:
    data = _compact({"type": kind, "sequence_number": number, **rest})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def _response(status: str, text: str) -> dict[str, object]:
    content = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [content],
    }
    usage = {
        "input_tokens": 200,
        "input_tokens_details": {"cached_tokens": 128},
        "output_tokens": 250,
        "output_tokens_details": {"reasoning_tokens": 10},
        "total_tokens": 450,
    }
    return {
        "id": "resp_bench",
        "object": "response",
        "created_at": 1_760_000_000,
        "status": status,
        "model": "gpt-5-2025-08-07",
        "output": [message] if text else [],
        "metadata": {},
        "service_tier": "default",
        "usage": usage if text else None,
    }


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
