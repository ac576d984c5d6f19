"""The parts of upstream answers that the gateway reads, as msgspec structs. Pure.

msgspec skips every member that is not listed here. Members typed `Any` or `object`
accept any value, so that one odd member does not hide the others."""

from typing import Any

import msgspec

from libs.common.bodies.schema import keep
from libs.common.bodies.shapes import Shape


class InputDetails(Shape):
    cached_tokens: int | None = None


class OutputDetails(Shape):
    reasoning_tokens: int | None = None


class Usage(Shape):
    input_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None
    total_tokens: int | None = None
    # The names in chat completions and embeddings.
    prompt_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens: int | None = None
    completion_tokens_details: OutputDetails | None = None


class Error(Shape):
    code: object = None
    message: object = None


class Identified(Shape):
    id: object = None


# Output items that ran code name containers, and files made there.
class Annotation(Shape):
    container_id: object = None
    file_id: object = None


class ContentPart(Shape):
    annotations: list[Annotation] | None = None


class OutputItem(Identified):
    container_id: object = None
    content: list[ContentPart] | str | None = None


class Answer(Shape):
    id: Any = None
    object: Any = None
    model: Any = None
    service_tier: Any = None
    conversation: Identified | None = None
    output: list[OutputItem] | None = None
    # Of a list endpoint: input items, or a conversation's items.
    data: list[Identified] | None = None
    file: Identified | None = None  # of a completed upload
    usage: Usage | None = None
    error: Error | str | None = None


class Event(Shape):
    type: str = ""
    response: Answer | None = None
    error: Error | str | None = None
    code: object = None
    message: object = None


# Where an output item has odd content.
class PlainAnswer(Answer):
    output: list[Identified] | None = None  # type: ignore[assignment]


class PlainEvent(Event):
    response: PlainAnswer | None = None


# The same for answers that are read in steps (libs/common/bodies/scanner.py).
class LargeIdentified(Shape):
    id: str | None = None


class LargeAnnotation(Shape):
    container_id: str | None = None
    file_id: str | None = None


class LargePart(Shape):
    annotations: list[LargeAnnotation | None] | None = None


class LargeOutputItem(LargeIdentified):
    container_id: str | None = None
    content: list[LargePart | None] | None = None


class LargeError(Shape):
    code: str | int | None = None
    message: str | None = None


class LargeAnswerShape(Shape):
    """The members of `Answer`, in its order."""

    id: str | None = None
    object: str | None = None
    model: str | None = None
    service_tier: str | None = None
    conversation: LargeIdentified | None = None
    output: list[LargeOutputItem | None] | None = None
    data: list[LargeIdentified | None] | None = None
    file: LargeIdentified | None = None
    usage: Usage | None = None
    error: LargeError | str | None = None


class LargeEventShape(Shape):
    type: str | None = None
    stream_id: str | None = None
    response: LargeAnswerShape | None = None
    error: LargeError | str | None = None
    code: str | int | None = None
    message: str | None = None


keep(LargeIdentified, lambda item: item.id)
keep(LargeOutputItem, lambda item: item.id)
keep(LargePart, lambda part: part.annotations)
keep(LargeAnnotation, lambda note: note.container_id or note.file_id)

ANSWER_TYPES = {field.name: field.type for field in msgspec.structs.fields(Answer)}
