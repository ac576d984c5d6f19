"""Streams a response as events, in the service's order. Pure: the same response always
gives the same events and sequence numbers; only the obfuscation differs."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from libs.simulator.api.answers import TERMINAL, pending
from libs.simulator.wire import Json

Pad = Callable[[], str]

_WORDS = re.compile(r"\s*\S+|\s+$")
_ARGUMENT_CHARS = 8
_OPENING = ("response.created", "response.queued", "response.in_progress")


def events_of(response: Json, pad: Pad | None = None) -> Iterator[Json]:
    """Every event up to the response's current status, numbered from 0.

    An ended response has a terminal event; a background response in progress has the
    events so far. `pad` makes the random obfuscation of deltas."""
    for number, event in enumerate(_unnumbered(response, pad)):
        yield {"type": event.pop("type"), "sequence_number": number, **event}


def _unnumbered(response: Json, pad: Pad | None) -> Iterator[Json]:
    background, status = response.get("background"), response["status"]
    first = pending(response, "queued" if background else "in_progress")
    yield {"type": "response.created", "response": first}
    if background:
        yield {"type": "response.queued", "response": first}
        if status == "queued":
            return
    running = pending(response, "in_progress")
    yield {"type": "response.in_progress", "response": running}
    if status not in TERMINAL or status == "cancelled":
        return
    for index, item in enumerate(response["output"]):
        yield from _item_events(index, item, pad)
    yield {"type": f"response.{status}", "response": response}


def _item_events(index: int, item: Json, pad: Pad | None) -> Iterator[Json]:
    where = {"item_id": item["id"], "output_index": index}
    body: Iterable[Json] = ()
    opened = item
    if item["type"] == "message":
        opened = {**item, "status": "in_progress", "content": []}
        body = _message_events(where, item, pad)
    elif item["type"] == "function_call":
        opened = {**item, "status": "in_progress", "arguments": ""}
        body = _call_events(where, item, "function_call_arguments", pad)
    elif item["type"] == "custom_tool_call":
        opened = {**item, "status": "in_progress", "input": ""}
        body = _call_events(where, item, "custom_tool_call_input", pad)
    added = {"output_index": index, "item": opened}
    yield {"type": "response.output_item.added", **added}
    yield from body
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _message_events(where: Json, item: Json, pad: Pad | None) -> Iterator[Json]:
    for content_index, part in enumerate(item["content"]):
        here = {**where, "content_index": content_index}
        empty = {**part, "text": ""}
        yield {"type": "response.content_part.added", **here, "part": empty}
        for piece in _WORDS.findall(part["text"]):
            delta = {"type": "response.output_text.delta", **here}
            yield _padded({**delta, "delta": piece, "logprobs": []}, pad)
        done = {"text": part["text"], "logprobs": []}
        yield {"type": "response.output_text.done", **here, **done}
        yield {"type": "response.content_part.done", **here, "part": part}


def _call_events(where: Json, item: Json, name: str, pad: Pad | None) -> Iterator[Json]:
    field = "arguments" if name == "function_call_arguments" else "input"
    text = item[field]
    for start in range(0, len(text), _ARGUMENT_CHARS):
        piece = text[start : start + _ARGUMENT_CHARS]
        delta = {"type": f"response.{name}.delta", **where, "delta": piece}
        yield _padded(delta, pad)
    yield {"type": f"response.{name}.done", **where, field: text}


def _padded(event: Json, pad: Pad | None) -> Json:
    return event if pad is None else {**event, "obfuscation": pad()}


def is_terminal(event: Json) -> bool:
    """Whether this event ends the stream."""
    kind = event["type"]
    return kind == "error" or kind.removeprefix("response.") in TERMINAL


def with_metadata(
    events: Iterable[Json], response_id: str, headers: Mapping[str, str]
) -> Iterator[Json]:
    """The events, with a `response.metadata` event after the first one. It is outside
    the published events, so it has no sequence number."""
    metadata = {"type": "response.metadata", "response_id": response_id}
    for number, event in enumerate(events):
        yield event
        if number == 0:
            yield {**metadata, "headers": dict(headers)}


def with_error(events: Iterable[Json], error: Json) -> Iterator[Json]:
    """The events of a stream that ends in an `error` event."""
    number = 0
    for event in events:
        if event["type"] not in _OPENING:
            break
        yield event
        number += 1
    yield {"type": "error", "sequence_number": number, **error}
