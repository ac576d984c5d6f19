"""The shapes of request bodies, as far as routing and isolation read them. Pure.

msgspec skips what is not named here. Types are strict: a value of another type makes
the body an odd one, which is read field by field (`hints.py`)."""

import msgspec

NULL = msgspec.Raw(b"null")
# Bad UTF-8 and deep nesting are no msgspec errors.
ODD_JSON = (msgspec.MsgspecError, ValueError, RecursionError)


class Shape(msgspec.Struct, gc=False):
    """Part of a body. None refers back to what holds it, so that the collector, whose
    runs would count as steps, need not know them."""


class Metadata(Shape):
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None


class Named(Shape):
    """An object that names another one, by `id` or as a file."""

    id: str | None = None
    file_id: str | None = None


class Part(Shape):
    """Of a message's content, or of a tool's output."""

    file_id: str | None = None
    file: Named | None = None  # of chat completions


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


class Body(Shape):
    """What affinity needs."""

    model: str | None = None
    stream: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | Named | None = None
    prompt_cache_key: str | None = None
    metadata: Metadata | None = None
    client_metadata: Metadata | None = None
    tools: list[Tool | None] | None = None
    # Of other calls: files into a vector store or a container, a batch.
    file_id: str | None = None
    file_ids: list[str | None] | None = None
    input_file_id: str | None = None
    # Of sockets' frames.
    type: str | None = None
    stream_id: str | None = None
    input: (
        str | list[Item | str | int | float | list[msgspec.Raw] | bool | None] | None
    ) = None


class Environment(Shape):
    """Where a shell runs."""

    container_id: str | None = None
    file_ids: list[str | None] | None = None


class WholeItem(Item):
    container_id: str | None = None  # of a call that ran code
    environment: Environment | None = None
    type: str | None = None
    role: str | None = None
    arguments: msgspec.Raw = NULL  # of a function call
    input: msgspec.Raw = NULL  # of a custom tool call
    output: Parts = None


class WholeTool(Tool):
    input_image_mask: Named | None = None
    environment: Environment | None = None


class Prompt(Shape):
    # Of a large one (`scanning.py`) the values alone.
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


class WholeBody(Body):
    """What isolation needs, too: every upstream id that a request names."""

    tools: list[WholeTool | None] | None = None  # type: ignore[assignment] # narrower
    input: WholeItems = None  # type: ignore[assignment]
    items: WholeItems = None  # of the conversations API
    messages: list[Message | None] | None = None
    prompt: str | Prompt | None = None
    # Of other calls.
    files: list[Named | str | None] | None = None
    images: list[Named | str | None] | None = None
    mask: Named | str | None = None
    input_image_mask: Named | None = None
    input_reference: Named | str | None = None
    training_file: str | None = None
    validation_file: str | None = None
    tool_resources: ToolResources | None = None
