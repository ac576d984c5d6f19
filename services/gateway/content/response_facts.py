"""What the ledger and affinity need to know of an answer, read from its bytes.
Pure. An answer of another shape tells nothing and passes all the same."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from libs.common.bodies.minted_ids import is_minted
from libs.common.bodies.scanner import Scan
from libs.common.bodies.schema import keep
from libs.common.bodies.shapes import ODD_JSON, Shape

MOST_LEARNED = 128  # ids of one answer


class Facts(msgspec.Struct, gc=False):
    """What an answer told of itself."""

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
    minted: tuple[str, ...] = ()  # ids this account can be asked for again

    @property
    def ids(self) -> tuple[str, ...]:
        """All that were minted, the response's own first."""
        if self.response_id is None or self.response_id in self.minted:
            return self.minted
        return (self.response_id, *self.minted)


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None
    total_tokens: int | None = None
    # Chat completions and embeddings name them so.
    prompt_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Error(msgspec.Struct):
    code: object = None
    message: object = None


class _Item(msgspec.Struct):
    id: object = None


class _Annotation(msgspec.Struct):
    container_id: object = None
    file_id: object = None


class _Part(msgspec.Struct):
    annotations: list[_Annotation] | None = None


class _Rich(msgspec.Struct):
    """An output item that ran code: its container, and the files made there."""

    container_id: object = None
    content: list[_Part] | str | None = None


class _Output(msgspec.Struct):
    output: list[_Rich] | None = None


class _OutputEvent(msgspec.Struct):
    response: _Output | None = None


class _Answer(msgspec.Struct):
    id: Any = None
    object: Any = None
    status: Any = None
    model: Any = None
    service_tier: Any = None
    conversation: _Item | None = None
    output: list[_Item] | None = None
    data: list[_Item] | None = None  # of a list: input items, a conversation's items
    file: _Item | None = None  # of an upload that is complete
    usage: _Usage | None = None
    error: _Error | str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Answer | None = None
    error: _Error | str | None = None
    code: object = None
    message: object = None


# The same for answers that are read in steps (libs/common/bodies/scanner.py).
class _LargeItem(Shape):
    id: str | None = None


class _LargeNote(Shape):
    container_id: str | None = None
    file_id: str | None = None


class _LargePart(Shape):
    annotations: list[_LargeNote | None] | None = None


class _LargeOutput(_LargeItem):
    container_id: str | None = None
    content: list[_LargePart | None] | None = None


class _LargeUsage(Shape, _Usage):
    pass


class _LargeError(Shape):
    code: str | int | None = None
    message: str | None = None


class _LargeAnswer(Shape):
    id: str | None = None
    object: str | None = None
    status: str | None = None
    model: str | None = None
    service_tier: str | None = None
    conversation: _LargeItem | None = None
    output: list[_LargeOutput | None] | None = None
    file: _LargeItem | None = None
    data: list[_LargeItem | None] | None = None
    usage: _LargeUsage | None = None
    error: _LargeError | str | None = None


class _LargeEvent(Shape):
    type: str | None = None
    stream_id: str | None = None
    response: _LargeAnswer | None = None
    error: _LargeError | str | None = None
    code: str | int | None = None
    message: str | None = None


keep(_LargeItem, lambda item: item.id)
keep(_LargeOutput, lambda item: item.id)
keep(_LargePart, lambda part: part.annotations)
keep(_LargeNote, lambda note: note.container_id or note.file_id)

_answers = msgspec.json.Decoder(_Answer)
_odd = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TYPES = {field.name: field.type for field in msgspec.structs.fields(_Answer)}
_events = msgspec.json.Decoder(_Event)


_outputs = msgspec.json.Decoder(_Output)
_output_events = msgspec.json.Decoder(_OutputEvent)
# A JSON answer that is too large to be read begins with its id.
_BEGINNING = re.compile(
    rb'\s*\{\s*(?:"object"\s*:\s*"[a-z._]{1,64}"\s*,\s*)?"id"\s*:\s*"([A-Za-z0-9_-]{1,512})"'
)


def read_answer(body: bytes) -> Facts:
    """Facts of a JSON answer."""
    try:
        facts = _facts(_answers.decode(body))
    except msgspec.ValidationError:
        return _facts_by_field(body)
    except ODD_JSON:
        return Facts()
    if b"container" in body or b"file_path" in body:
        _take_objects(facts, body, _outputs)
    return facts


def read_beginning(body: bytes) -> Facts:
    """What the first bytes of a large JSON answer tell: its id."""
    found = _BEGINNING.match(body)
    id_ = found[1].decode() if found else None
    if not is_minted(id_):
        return Facts()
    response_id = id_ if id_ is not None and id_.startswith("resp_") else None
    return Facts(response_id, minted=(id_,) if id_ else ())


def _take_objects(facts: Facts, body: bytes, decoder: Any) -> None:
    """Containers that output items name, and files made there: not at the top of
    the answer, and rare. Without the words `container` and `file_path` there are
    none."""
    try:
        read = decoder.decode(body)
    except ODD_JSON:
        return
    answer = read.response if isinstance(read, _OutputEvent) else read
    _add_objects(facts, (answer.output if answer else None) or ())


def _add_objects(facts: Facts, output: Iterable[_Rich | _LargeOutput | None]) -> None:
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


class LargeAnswer:
    """A JSON answer, or with `event` an event, that is read in steps."""

    def __init__(self, data: bytes, *, event: bool = False) -> None:
        self._scan = Scan(data, _LargeEvent if event else _LargeAnswer)
        self.type: str | None = None  # of an event
        self.lane: str | None = None
        self.facts = Facts()

    def steps(self) -> Iterator[None]:
        yield from self._scan.steps()
        found = self._scan.parsed
        if isinstance(found, _LargeEvent):
            self.type, self.lane = found.type, found.stream_id
            self.facts = _facts_of(found)
            found = found.response
        elif found is not None:
            self.facts = _facts(found)
        if found is not None:
            _add_objects(self.facts, found.output or ())


def _facts_by_field(body: bytes) -> Facts:
    """One odd field costs no other fact."""
    answer = _Answer()
    try:
        fields = _odd.decode(body)
    except ODD_JSON:
        return Facts()
    for name, kind in _TYPES.items():
        with contextlib.suppress(*ODD_JSON):
            given = fields.get(name, b"null")
            setattr(answer, name, msgspec.json.decode(given, type=kind))
    return _facts(answer)


def read_event(data: bytes) -> tuple[str, Facts]:
    """Type and facts of one stream event (the JSON behind `data:`)."""
    try:
        event = _events.decode(data)
    except ODD_JSON:
        return "", Facts()
    return event.type, _facts_of(event, data)


def _facts_of(event: _Event | _LargeEvent, data: bytes = b"") -> Facts:
    facts = Facts()
    if event.response:
        facts = _facts(event.response)
        if b"container" in data or b"file_path" in data:
            _take_objects(facts, data, _output_events)
    if facts.error_code is None:
        _take_error(facts, event.error or _Error(event.code, event.message))
    return facts


def _facts(answer: _Answer | _LargeAnswer) -> Facts:
    facts = Facts(
        _text(answer.id) if _is_response(answer) else None,
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


def _is_response(answer: _Answer | _LargeAnswer) -> bool:
    return isinstance(answer.object, str) and answer.object.startswith("response")


def _minted(answer: _Answer | _LargeAnswer) -> tuple[str, ...]:
    ids: list[Any] = [answer.id]
    if answer.file is not None:
        ids.append(answer.file.id)
    if answer.conversation is not None:
        ids.append(answer.conversation.id)
    for items in (answer.output, answer.data):
        if items is not None:
            ids += [item.id for item in items if item is not None]
    return tuple([id_ for id_ in ids if is_minted(id_)][:MOST_LEARNED])


def _take_usage(facts: Facts, usage: _Usage) -> None:
    facts.input_tokens = _either(usage.input_tokens, usage.prompt_tokens)
    facts.output_tokens = _either(usage.output_tokens, usage.completion_tokens)
    facts.total_tokens = usage.total_tokens
    read = usage.input_tokens_details or usage.prompt_tokens_details
    facts.cached_tokens = read.cached_tokens if read else None
    written = usage.output_tokens_details or usage.completion_tokens_details
    facts.reasoning_tokens = written.reasoning_tokens if written else None


def _take_error(facts: Facts, error: Any) -> None:
    if isinstance(error, _Error | _LargeError):
        facts.error_code = _text(error.code)
        facts.error_message = _text(error.message)
    elif isinstance(error, str):
        facts.error_message = error


def _either(first: int | None, second: int | None) -> int | None:
    return second if first is None else first


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
