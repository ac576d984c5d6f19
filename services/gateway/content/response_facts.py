"""Reads what the ledger and affinity need from the bytes of upstream answers. Pure.

An answer of another shape gives no facts; the client gets it all the same."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from libs.common.bodies.minted_ids import is_minted
from libs.common.bodies.scanner import Scan
from libs.common.bodies.shapes import ODD_JSON
from services.gateway.content.response_shapes import (
    ANSWER_TYPES,
    Answer,
    CodeEvent,
    CodeItem,
    CodeOutput,
    Error,
    Event,
    LargeAnswerShape,
    LargeError,
    LargeEventShape,
    LargeOutputItem,
    Usage,
)

MOST_LEARNED = 128  # ids taken from one answer


class Facts(msgspec.Struct, gc=False):
    """What one answer states about itself. Members it lacks are None."""

    response_id: str | None = None
    status: str | None = None
    model: str | None = None
    service_tier: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    minted: tuple[str, ...] = ()  # ids that only the answering account can resolve

    @property
    def ids(self) -> tuple[str, ...]:
        """All minted ids, the response's own first."""
        if self.response_id is None or self.response_id in self.minted:
            return self.minted
        return (self.response_id, *self.minted)


_answers = msgspec.json.Decoder(Answer)
_events = msgspec.json.Decoder(Event)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_code_outputs = msgspec.json.Decoder(CodeOutput)
_code_events = msgspec.json.Decoder(CodeEvent)
# The beginning of a JSON answer, which holds its id.
_BEGINNING = re.compile(
    rb'\s*\{\s*(?:"object"\s*:\s*"[a-z._]{1,64}"\s*,\s*)?"id"\s*:\s*"([A-Za-z0-9_-]{1,512})"'
)


def read_answer(body: bytes) -> Facts:
    """Facts of a JSON answer. An odd member hides no other."""
    try:
        answer = _answers.decode(body)
    except msgspec.ValidationError:
        answer = _answer_by_member(body)
    except ODD_JSON:
        return Facts()
    facts = _facts(answer)
    if b"container" in body or b"file_path" in body:
        _add_code_objects(facts, body, _code_outputs)
    return facts


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
        event = _events.decode(data)
    except ODD_JSON:
        return "", Facts()
    return event.type, _event_facts(event, data)


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
            found = found.response
        elif found is not None:
            self.facts = _facts(found)
        if found is not None:
            _add_objects(self.facts, found.output or ())


def _answer_by_member(body: bytes) -> Answer:
    """Reads each member on its own and leaves out those of a wrong type."""
    answer = Answer()
    try:
        members = _members.decode(body)
    except ODD_JSON:
        return answer
    for name, kind in ANSWER_TYPES.items():
        with contextlib.suppress(*ODD_JSON):
            given = members.get(name, b"null")
            setattr(answer, name, msgspec.json.decode(given, type=kind))
    return answer


def _event_facts(event: Event | LargeEventShape, data: bytes = b"") -> Facts:
    facts = Facts()
    if event.response:
        facts = _facts(event.response)
        if b"container" in data or b"file_path" in data:
            _add_code_objects(facts, data, _code_events)
    if facts.error_code is None:
        _take_error(facts, event.error or Error(event.code, event.message))
    return facts


def _facts(answer: Answer | LargeAnswerShape) -> Facts:
    kind = answer.object
    is_response = isinstance(kind, str) and kind.startswith("response")
    facts = Facts(
        _text(answer.id) if is_response else None,
        _text(answer.status),
        _text(answer.model),
        _text(answer.service_tier),
    )
    facts.minted = _minted(answer)
    if answer.usage is not None:
        _take_usage(facts, answer.usage)
    if answer.error is not None:
        _take_error(facts, answer.error)
    return facts


def _minted(answer: Answer | LargeAnswerShape) -> tuple[str, ...]:
    ids: list[Any] = [answer.id]
    if answer.file is not None:
        ids.append(answer.file.id)
    if answer.conversation is not None:
        ids.append(answer.conversation.id)
    if answer.output is not None:
        ids += [item.id for item in answer.output if item is not None]
    if answer.data is not None:
        ids += [item.id for item in answer.data if item is not None]
    return tuple(filter(is_minted, ids))[:MOST_LEARNED]


def _take_usage(facts: Facts, usage: Usage) -> None:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    facts.input_tokens = prompt if usage.input_tokens is None else usage.input_tokens
    facts.output_tokens = (
        completion if usage.output_tokens is None else usage.output_tokens
    )
    facts.total_tokens = usage.total_tokens
    read = usage.input_tokens_details or usage.prompt_tokens_details
    if read is not None:
        facts.cached_tokens = read.cached_tokens
    written = usage.output_tokens_details or usage.completion_tokens_details
    if written is not None:
        facts.reasoning_tokens = written.reasoning_tokens


def _take_error(facts: Facts, error: Any) -> None:
    if isinstance(error, Error | LargeError):
        facts.error_code = _text(error.code)
        facts.error_message = _text(error.message)
    elif isinstance(error, str):
        facts.error_message = error


def _add_code_objects(facts: Facts, body: bytes, decoder: Any) -> None:
    """Adds the containers that output items name, and the files made there. Only
    bodies with the word `container` or `file_path` have any."""
    try:
        read = decoder.decode(body)
    except ODD_JSON:
        return
    answer = read.response if isinstance(read, CodeEvent) else read
    _add_objects(facts, (answer.output if answer else None) or ())


def _add_objects(
    facts: Facts, output: Iterable[CodeItem | LargeOutputItem | None]
) -> None:
    found: list[object] = []
    for item in output:
        if item is None:
            continue
        found.append(item.container_id)
        for part in item.content if isinstance(item.content, list) else ():
            for note in (part.annotations if part else None) or ():
                if note is not None:
                    found += (note.container_id, note.file_id)
    minted = [id_ for id_ in found if isinstance(id_, str) and is_minted(id_)]
    facts.minted = tuple(dict.fromkeys((*facts.minted, *minted)))[:MOST_LEARNED]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
