"""Parses create requests. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from libs.simulator.api import errors
from libs.simulator.wire import Json

_ID = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Ask:
    """A parsed create request. `body` stays as sent, for echoing."""

    body: Json
    model: str
    items: list[Json]
    previous_id: str | None
    conversation_id: str | None
    store: bool
    stream: bool
    background: bool

    @property
    def wants_reasoning(self) -> bool:
        return "reasoning.encrypted_content" in (self.body.get("include") or ())

    @property
    def compacts(self) -> bool:
        return bool(self.items) and self.items[-1].get("type") == "compaction_trigger"

    @property
    def warms_up(self) -> bool:
        """WebSocket only: store the input and generate nothing."""
        return self.body.get("generate") is False

    @property
    def obfuscates(self) -> bool:
        options = self.body.get("stream_options") or {}
        return options.get("include_obfuscation") is not False

    def number(self, name: str, default: int) -> int:
        """A number that a test passes to the simulator in the request's metadata."""
        value = str((self.body.get("metadata") or {}).get(name, ""))
        return int(value) if value.isdecimal() else default


def parse(body: Json) -> Ask:
    """Parse a create request; raises the `ApiError` that the service would return."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise errors.missing("model")
    ask = Ask(
        body=body,
        model=model,
        items=input_items(body.get("input")),
        previous_id=_optional_id(body, "previous_response_id"),
        conversation_id=_conversation_id(body.get("conversation")),
        store=body.get("store") is not False,
        stream=body.get("stream") is True,
        background=body.get("background") is True,
    )
    if ask.previous_id and ask.conversation_id:
        raise errors.invalid(
            "previous_response_id", "it cannot be used together with 'conversation'"
        )
    if ask.background and not ask.store:
        raise errors.invalid("background", "background mode requires store=true")
    return ask


def input_items(value: Any) -> list[Json]:
    """The input as a list of items; a string becomes one user message."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise errors.invalid("input", "expected a string or an array of items")


def parts(item: Json) -> Iterator[Json]:
    """The content parts of a message; a string becomes one text part."""
    content = item.get("content")
    if isinstance(content, str):
        yield {"type": "input_text", "text": content}
    elif isinstance(content, list):
        yield from (part for part in content if isinstance(part, dict))


def file_ids(item: Json) -> Iterator[str]:
    """The ids of uploaded files in an item's content or in a tool's output."""
    for content in (item.get("content"), item.get("output")):
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("file_id"), str):
                yield part["file_id"]


def bound_ids(tools: Any) -> Iterator[str]:
    """The ids of vector stores, containers and files that the tools use."""
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            yield from filter(_is_text, _named_by(tool))


def _named_by(tool: Json) -> Iterator[Any]:
    yield from _list(tool.get("vector_store_ids"))
    container = tool.get("container")
    if isinstance(container, dict):
        yield from _list(container.get("file_ids"))
    else:
        yield container
    for holder, name in (
        ("environment", "container_id"),
        ("input_image_mask", "file_id"),
    ):
        held = tool.get(holder)
        if isinstance(held, dict):
            yield held.get(name)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def item_text(item: Json) -> str:
    """All text of an item, for counting and echoing."""
    texts = [part.get("text") for part in parts(item)]
    texts += [item.get(name) for name in ("arguments", "input", "output")]
    return " ".join(text for text in texts if isinstance(text, str))


def _optional_id(body: Json, name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise errors.invalid(
            name, "it may hold letters, digits, underscores and dashes only"
        )
    return value


def _conversation_id(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("id")
    return _optional_id({"conversation": value}, "conversation")
