"""The members of request bodies that routing and isolation read. Pure.

msgspec skips all other members. Types are strict: a body with a value of another type
is read member by member instead (`scanner.py`)."""

from typing import Any, Final

import msgspec

NULL = msgspec.Raw(b"null")
# Invalid UTF-8 and deep nesting raise no msgspec errors.
ODD_JSON = (msgspec.MsgspecError, ValueError, RecursionError)


class Shape(msgspec.Struct, gc=False):
    """Part of a body. Shapes contain no reference cycles, so the garbage collector,
    whose runs would lengthen a step, does not track them."""


class Metadata(Shape):
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None


class Named(Shape):
    """An object that refers to another one by `id` or `file_id`."""

    id: str | None = None
    file_id: str | None = None


class Part(Shape):
    """A part of the content of a message or of the output of a tool."""

    file_id: str | None = None
    file: Named | None = None  # Chat Completions


Parts = str | list[Part | str | None] | Part | None


class Item(Shape):
    id: str | None = None
    encrypted_content: msgspec.Raw = NULL
    content: Parts = None
    file_id: str | None = None


class Container(Shape):
    file_ids: list[str | None] | None = None


class Tool(Shape):
    vector_store_ids: list[str | None] | None = None
    container: str | Container | None = None


# False, and no value that JSON may have there: the body has no such member.
ABSENT: Final[Any] = False


class Body(Shape):
    """Members that affinity needs."""

    model: str | None = None
    stream: bool | None = None
    background: bool | None = None
    max_output_tokens: int | None = None
    previous_response_id: str | None = ABSENT
    conversation: str | Named | None = ABSENT
    prompt_cache_key: str | None = None
    metadata: Metadata | None = None
    client_metadata: Metadata | None = None
    tools: list[Tool | None] | None = None
    # Other endpoints: files of a vector store or a container, a batch.
    file_id: str | None = None
    file_ids: list[str | None] | None = None
    input_file_id: str | None = None
    # WebSocket frames.
    type: str | None = None
    stream_id: str | None = None
    input: (
        str | list[Item | str | int | float | list[msgspec.Raw] | bool | None] | None
    ) = None


class Environment(Shape):
    """The environment of a shell tool."""

    container_id: str | None = None
    file_ids: list[str | None] | None = None


class WholeItem(Item):
    container_id: str | None = None  # code interpreter call
    environment: Environment | None = None
    type: str | None = None
    role: str | None = None
    arguments: msgspec.Raw = NULL  # function call
    input: msgspec.Raw = NULL  # custom tool call
    output: Parts = None


class WholeTool(Tool):
    input_image_mask: Named | None = None
    environment: Environment | None = None


class Prompt(Shape):
    # A large object is read as a list of its values (`scanner.py`).
    variables: dict[str, str | Named | None] | list[Named] | None = None


class FileSearch(Shape):
    vector_store_ids: list[str | None] | None = None


class ToolResources(Shape):
    file_search: FileSearch | None = None
    code_interpreter: Container | None = None


class Message(Shape):
    content: Parts = None


WholeItems = (
    str | list[WholeItem | str | int | float | list[msgspec.Raw] | bool | None] | None
)


class Reasoning(Shape):
    effort: str | None = None


class FrameIds(Shape):
    """The ids in a WebSocket message that creates no response."""

    response_id: object = None
    item_id: object = None
    id: object = None


class WholeBody(Body):
    """Members that keys need in addition: every upstream id in a request, and what
    policies limit."""

    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None  # Chat Completions, as are the next two
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    service_tier: str | None = None

    tools: list[WholeTool | None] | None = None  # type: ignore[assignment] # narrower
    input: WholeItems = None  # type: ignore[assignment]
    items: WholeItems = None  # Conversations API
    messages: list[Message | None] | None = None
    prompt: str | Prompt | None = None
    # Other endpoints.
    files: list[Named | str | None] | None = None
    images: list[Named | str | None] | None = None
    mask: Named | str | None = None
    input_image_mask: Named | None = None
    input_reference: Named | str | None = None
    training_file: str | None = None
    validation_file: str | None = None
    tool_resources: ToolResources | None = None


# Places of members in the order of the class, for who reads them all at once.
LIMIT: Final = 3
OBJECTS: Final = slice(9, 13)  # that name objects
INPUT: Final = 15
LIMITED: Final = 16  # and the next four: those that policies limit
ITEMS: Final = 21
MESSAGES: Final = 22
RARE: Final = slice(MESSAGES + 1, None)  # that name objects
OTHERS: Final = slice(MESSAGES, None)  # that name objects: the messages, and the rare
OUTPUT: Final = 10  # of a `WholeItem`
