"""The places of members, by which compiled code reads them."""

from libs.common.bodies.shapes import (
    INPUT,
    ITEMS,
    LIMIT,
    LIMITED,
    MESSAGES,
    OBJECTS,
    OTHERS,
    OUTPUT,
    RARE,
    Body,
    Item,
    Metadata,
    WholeBody,
    WholeItem,
)


def test_members_are_where_their_readers_look() -> None:
    """A member that is added in between would hide ids from isolation."""
    names = WholeBody.__struct_fields__
    assert Body.__struct_fields__ == names[:LIMITED]
    assert names[:LIMIT] == ("model", "stream", "background")
    assert names[LIMIT : OBJECTS.start] == (
        *("max_output_tokens", "previous_response_id", "conversation"),
        *("prompt_cache_key", "metadata", "client_metadata"),
    )
    assert names[OBJECTS] == ("tools", "file_id", "file_ids", "input_file_id")
    assert names[INPUT] == "input"
    assert names[LIMITED:ITEMS] == (
        *("reasoning", "reasoning_effort", "max_tokens", "max_completion_tokens"),
        "service_tier",
    )
    assert names[ITEMS] == "items"
    assert names[MESSAGES] == "messages"
    assert names[RARE] == (
        *("prompt", "files", "images", "mask", "input_image_mask", "input_reference"),
        *("training_file", "validation_file", "tool_resources"),
    )
    assert names[OTHERS] == (names[MESSAGES], *names[RARE])
    assert Metadata.__struct_fields__ == ("session_id", "session_name", "pool_id")


def test_members_of_items_are_too() -> None:
    names = WholeItem.__struct_fields__
    assert Item.__struct_fields__ == names[:4]
    assert names[:6] == (
        *("id", "encrypted_content", "content", "file_id", "container_id"),
        "environment",
    )
    assert names[OUTPUT] == "output"
