"""Builds the simulated model's answers: output items and response objects. Pure: the
mint provides ids, and the time is an argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from libs.simulator.api.create_request import Ask, item_text
from libs.simulator.api.schema_values import example
from libs.simulator.state.threads import Thread, ToolCall
from libs.simulator.wire import Json, encode

REASONING_TOKENS = 16
TERMINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})


class Mint(Protocol):
    """Makes ids and sealed blobs (`libs.simulator.state.ids`)."""

    @property
    def account(self) -> str: ...

    def new_id(self, prefix: str, *, stored: bool = True) -> str: ...

    def call_id(self) -> str: ...

    def seal(self, payload_bytes: int = 256) -> str: ...


@dataclass(frozen=True)
class Fate:
    """The terminal status that a fault prescribes."""

    status: str  # "failed" or "incomplete"
    code: str
    message: str = ""


def outputs(ask: Ask, thread: Thread, mint: Mint) -> list[Json]:
    """The output items that answer this history."""
    if ask.warms_up:
        return []
    if ask.compacts:
        return [compaction(mint, stored=ask.store)]
    items = [reasoning(mint, stored=ask.store)] if ask.wants_reasoning else []
    call = wanted_call(ask, thread)
    if call:
        return [*items, tool_call(mint, call, stored=ask.store)]
    return [*items, message(mint, answer_text(ask, thread, mint), stored=ask.store)]


def wanted_call(ask: Ask, thread: Thread) -> ToolCall | None:
    """The tool call this history asks for, unless it has been answered already."""
    choice = ask.body.get("tool_choice") or "auto"
    forced = choice not in ("auto", "none")
    wanted = (thread.asks_for_tool or forced) and choice != "none"
    return thread.tool if wanted and not thread.tool_answered else None


def answer_text(ask: Ask, thread: Thread, mint: Mint) -> str:
    """The answer's text; valid JSON for the requested schema, if there is one."""
    text = f"Simulated answer from {mint.account}: {thread.echo}".rstrip()
    extra = ask.number("simulate_words", 0)
    if extra:
        text += " simulated" * extra
    shape = (ask.body.get("text") or {}).get("format") or {}
    if shape.get("type") == "json_schema":
        return encode(example(shape.get("schema"), text)).decode()
    if shape.get("type") == "json_object":
        return encode({"answer": text}).decode()
    return text


def message(mint: Mint, text: str, *, stored: bool) -> Json:
    return {
        "id": mint.new_id("msg", stored=stored),
        "type": "message",
        "status": "completed",
        "content": [
            {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
        ],
        "role": "assistant",
    }


def reasoning(mint: Mint, *, stored: bool) -> Json:
    return {
        "id": mint.new_id("rs", stored=stored),
        "type": "reasoning",
        "encrypted_content": mint.seal(),
        "summary": [],
    }


def compaction(mint: Mint, *, stored: bool) -> Json:
    return {
        "id": mint.new_id("cmp", stored=stored),
        "type": "compaction",
        "encrypted_content": mint.seal(512),
    }


def tool_call(mint: Mint, call: ToolCall, *, stored: bool) -> Json:
    custom = call.kind == "custom"
    item: Json = {
        "id": mint.new_id("ctc" if custom else "fc", stored=stored),
        "type": "custom_tool_call" if custom else "function_call",
        "status": "completed",
        "input" if custom else "arguments": call.arguments,
        "call_id": mint.call_id(),
        "name": call.name,
    }
    if call.namespace:
        item["namespace"] = call.namespace
    return item


def usage(thread: Thread, items: Sequence[Json], cached: int) -> Json:
    """Token counts, at four characters per token."""
    given = thread.tokens
    cached = min(cached, given)
    reasoned = sum(REASONING_TOKENS for i in items if i["type"] == "reasoning")
    written = sum(-(-len(item_text(item)) // 4) for item in items) + reasoned
    return {
        "input_tokens": given,
        "input_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": given - cached,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": reasoned},
        "total_tokens": given + written,
    }


# Fields echoed from the request, with the service's defaults for absent ones.
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def response_object(
    ask: Ask, response_id: str, items: list[Json], counts: Json, now: float
) -> Json:
    """The completed response object."""
    body = ask.body
    response: Json = {
        "id": response_id,
        "object": "response",
        "created_at": int(now),
        "status": "completed",
        "completed_at": int(now),
        "error": None,
        "incomplete_details": None,
        "model": ask.model,
        "output": items,
    }
    for name, default in _ECHOED.items():
        given = body.get(name)
        response[name] = default if given is None else given
    response["reasoning"] = _completed_with(
        body.get("reasoning"), {"effort": "medium", "summary": None}
    )
    response["text"] = _completed_with(
        body.get("text"), {"format": {"type": "text"}, "verbosity": "medium"}
    )
    response["service_tier"] = _tier(body.get("service_tier"))
    response["tools"] = body.get("tools") or []
    response["metadata"] = body.get("metadata") or {}
    if ask.conversation_id:
        response["conversation"] = {"id": ask.conversation_id}
    response["usage"] = counts
    return response


def _completed_with(given: Any, defaults: Json) -> Json:
    return {**defaults, **given} if isinstance(given, dict) else defaults


def _tier(asked: Any) -> str:
    return "default" if asked in (None, "auto") else str(asked)


def pending(response: Json, status: str) -> Json:
    """The response object before it ends."""
    return {
        **response,
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }


def spoiled(response: Json, fate: Fate | None) -> Json:
    """The response object with the fault's terminal status; unchanged without a
    fault."""
    if fate is None:
        return response
    if fate.status == "incomplete":
        details = {"reason": fate.code}
        return {
            **response,
            "status": "incomplete",
            "completed_at": None,
            "incomplete_details": details,
        }
    error = {"code": fate.code, "message": fate.message}
    return {**pending(response, "failed"), "error": error}
