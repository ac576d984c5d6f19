"""Reads what the ledger and affinity need from the bytes of upstream answers. Pure.

An answer of another shape gives no facts; the client gets it all the same."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from libs.common.bodies.minted_ids import is_minted
from libs.common.bodies.scanner import Scan
from libs.common.bodies.shapes import NULL, ODD_JSON
from services.gateway.content.facts import Facts
from services.gateway.content.response_shapes import (
    ANSWER_TYPES,
    Answer,
    Error,
    Event,
    Identified,
    LargeAnswerShape,
    LargeError,
    LargeEventShape,
    LargeOutputItem,
    OutputItem,
    PlainEvent,
    Usage,
)

__all__ = [
    "MOST_LEARNED",
    "Facts",
    "LargeAnswer",
    "read_answer",
    "read_beginning",
    "read_event",
]

_members_of: Final = astuple
MOST_LEARNED: Final = 128  # ids taken from one answer
_WITH_CONTENT: Final = (OutputItem, LargeOutputItem)


_decode: Final = msgspec.json.Decoder(Answer).decode
_events: Final = msgspec.json.Decoder(Event)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_plain_events: Final = msgspec.json.Decoder(PlainEvent)
# The beginning of a JSON answer, which holds its id.
_BEGINNING = re.compile(
    rb'\s*\{\s*(?:"object"\s*:\s*"[a-z._]{1,64}"\s*,\s*)?"id"\s*:\s*"([A-Za-z0-9_-]{1,512})"'
)


def read_answer(body: bytes) -> Facts:
    """Facts of a JSON answer. An odd member hides no other."""
    try:
        answer = _decode(body)
    except msgspec.ValidationError:
        answer = _answer_by_member(body)
    except ODD_JSON:
        return Facts()
    return _facts(answer)


def read_beginning(body: bytes) -> Facts:
    """The id of a JSON answer that is too large to be read, from its first bytes."""
    found = _BEGINNING.match(body)
    id_ = found[1].decode() if found else None
    if id_ is None or not is_minted(id_):
        return Facts()
    return Facts(id_ if id_.startswith("resp_") else None, minted=(id_,))


def read_event(data: bytes) -> tuple[str, Facts]:
    """Type and facts of one stream event (the JSON of its `data:` lines)."""
    try:
        event = _event(data)
    except ODD_JSON:
        return "", Facts()
    return event.type, _event_facts(event)


def _event(data: bytes) -> Event:
    try:
        return _events.decode(data)
    except msgspec.ValidationError:
        return _plain_events.decode(data)


class LargeAnswer:
    """A JSON answer, or with `event` a stream event, that is read in steps."""

    def __init__(self, data: bytes, *, event: bool = False) -> None:
        self._scan = Scan(data, LargeEventShape if event else LargeAnswerShape)
        self.type: str | None = None  # of an event
        self.lane: str | None = None
        self.facts = Facts()

    def steps(self) -> Iterator[None]:
        yield from self._scan.steps()
        found = self._scan.parsed
        if isinstance(found, LargeEventShape):
            self.type, self.lane = found.type, found.stream_id
            self.facts = _event_facts(found)
        elif found is not None:
            self.facts = _facts(found)


def _answer_by_member(body: bytes) -> Answer:
    """Reads each member on its own and leaves out those of a wrong type."""
    answer = Answer()
    try:
        members = _members.decode(body)
    except ODD_JSON:
        return answer
    for name, kind in ANSWER_TYPES.items():
        with contextlib.suppress(*ODD_JSON):
            given = members.get(name, NULL)
            setattr(answer, name, msgspec.json.decode(given, type=kind))
    if answer.output is None:
        with contextlib.suppress(*ODD_JSON):
            given = members.get("output", NULL)
            items = msgspec.json.decode(given, type=list[Identified] | None)
            answer.output = items  # type: ignore[assignment] # less than usual
    return answer


def _event_facts(event: Event | LargeEventShape) -> Facts:
    facts = Facts()
    if event.response:
        facts = _facts(event.response)
    if facts.error_code is None:
        _take_error(facts, event.error or Error(event.code, event.message))
    return facts


# Members are read all at once, in the order of their classes: one by one, each takes a
# look-up by its name.


def _facts(answer: Answer | LargeAnswerShape) -> Facts:
    id_, kind, model, tier, conversation, output, data, file, usage, error = (
        _members_of(answer)
    )
    is_response = isinstance(kind, str) and kind.startswith("response")
    facts = Facts(_text(id_) if is_response else None, _text(model), _text(tier))
    ids: list[Any] = [id_]
    of_code: list[object] = []
    if file is not None:
        ids.append(file.id)
    if conversation is not None:
        ids.append(conversation.id)
    if output is not None:
        _add_items(output, ids, of_code)
    if data is not None:
        ids += [item.id for item in data if item is not None]
    facts.minted = _minted(ids, of_code)
    if usage is not None:
        _take_usage(facts, usage)
    if error is not None:
        _take_error(facts, error)
    return facts


def _minted(ids: list[Any], of_code: list[object]) -> tuple[str, ...]:
    minted = [id_ for id_ in ids if is_minted(id_)]
    if len(minted) > MOST_LEARNED:
        del minted[MOST_LEARNED:]
    if of_code:
        minted += [id_ for id_ in of_code if is_minted(id_)]
        minted = [*dict.fromkeys(minted)][:MOST_LEARNED]
    return tuple(minted)


def _add_items(
    output: Iterable[Identified | LargeOutputItem | None],
    ids: list[Any],
    of_code: list[object],
) -> None:
    """Adds the ids of output items, and of the containers and files that they name."""
    for item in output:
        if item is not None:
            ids.append(item.id)
            if isinstance(item, _WITH_CONTENT):
                _add_code_objects(item, of_code)


def _take_usage(facts: Facts, usage: Usage) -> None:
    (
        input_tokens, read, output_tokens, written, facts.total_tokens,
        prompt_tokens, read_of_prompt, completion_tokens, written_of_completion,
    ) = _members_of(usage)  # fmt: skip
    facts.input_tokens = prompt_tokens if input_tokens is None else input_tokens
    facts.output_tokens = completion_tokens if output_tokens is None else output_tokens
    read, written = read or read_of_prompt, written or written_of_completion
    if read is not None:
        facts.cached_tokens = read.cached_tokens
    if written is not None:
        facts.reasoning_tokens = written.reasoning_tokens


def _take_error(facts: Facts, error: Any) -> None:
    if isinstance(error, Error | LargeError):
        facts.error_code = _text(error.code)
        facts.error_message = _text(error.message)
    elif isinstance(error, str):
        facts.error_message = error


def _add_code_objects(item: OutputItem | LargeOutputItem, found: list[object]) -> None:
    if item.container_id is not None:
        found.append(item.container_id)
    if not isinstance(item.content, list):
        return
    for part in item.content:
        if part is not None and part.annotations:
            for note in part.annotations:
                if note is not None:
                    found += (note.container_id, note.file_id)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
