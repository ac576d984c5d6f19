"""Attempts to use another tenant's ids with a proxy key: every route and frame that
takes an id. docs/isolation.md has the table; tests run it."""

import json
from collections.abc import Iterator
from typing import Any

from services.gateway.auth.endpoints import RULES
from tests.support.clients.attack import (
    MODEL,
    NOT_FOUND,
    PREVIOUS,
    UNREADABLE,
    Attack,
    FrameAttack,
)
from tests.support.clients.hidden_attacks import closed, hidden

KINDS = {
    "responses": "resp",
    "conversations": "conv",
    "files": "file-",
    "uploads": "upload",
    "vector_stores": "vs",
    "containers": "cntr",
}
CHILDREN = {
    "items": "msg",
    "files": "file-",
    "file_batches": "batch",
}


def in_paths() -> Iterator[Attack]:
    """Every route with an id in its path."""
    for rule in RULES:
        if "{id}" not in rule.template:
            continue
        collection = rule.template.split("/")[1]
        body = None if rule.method in ("GET", "DELETE") else "{}"
        path = rule.template.replace("{id}", "ID")
        what = f"{rule.method} /v1{rule.template}"
        yield Attack(
            what,
            KINDS[collection],
            rule.method,
            path.replace("{child}", "msg_of_mine"),
            NOT_FOUND,
            body,
        )
        if "{child}" in rule.template:
            kind = CHILDREN[rule.template.split("/")[3]]
            own = rule.template.replace("{id}", f"OWN_{KINDS[collection]}")
            yield Attack(
                f"{what}, {{child}}",
                kind,
                rule.method,
                own.replace("{child}", "ID"),
                NOT_FOUND,
                body,
                reference=True,
            )


def _create(what: str, kind: str, given: dict[str, Any], **more: Any) -> Attack:
    result = more.pop("result", NOT_FOUND)
    body = json.dumps({"model": MODEL, "input": "hi", **given})
    path = more.pop("path", "/responses")
    return Attack(f"POST /v1{path}: {what}", kind, "POST", path, result, body, **more)


def _user(part: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"type": "message", "role": "user", "content": [part]}]}


def in_bodies() -> Iterator[Attack]:
    """Every field of a body that may hold an id."""
    for path in ("/responses", "/responses/input_tokens", "/responses/compact"):
        yield _create(
            "previous_response_id",
            "resp",
            {"previous_response_id": "ID"},
            path=path,
            result=PREVIOUS,
        )
        yield _create("conversation", "conv", {"conversation": "ID"}, path=path)
        yield _create(
            "item reference in input",
            "msg",
            {"input": [{"type": "item_reference", "id": "ID"}]},
            path=path,
            reference=True,
        )
    yield _create("conversation.id", "conv", {"conversation": {"id": "ID"}})
    yield _create(
        "reasoning item without its content",
        "rs",
        {"input": [{"type": "reasoning", "id": "ID", "summary": []}]},
        reference=True,
    )
    sealed = {"type": "item_reference", "id": "ID", "encrypted_content": "x"}
    untyped = {"id": "ID", "encrypted_content": "x"}
    for what, item in (("with", sealed), ("without a type, with", untyped)):
        # With newer items, so that it is not among those that are always looked up.
        newer = [{"role": "user", "content": "x", "id": f"msg_{n}"} for n in range(9)]
        yield _create(
            f"item reference {what} encrypted content",
            "rs",
            {"input": [item, *newer]},
            reference=True,
        )
    ran = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "ID"}
    yield _create(
        "container of a call in input", "cntr", {"input": [ran]}, reference=True
    )
    old = [{"type": "item_reference", "id": "ID"}]
    newer = [{"role": "user", "content": "x", "id": f"msg_{n}"} for n in range(40)]
    yield _create(
        "item reference before forty newer items",
        "msg",
        {"input": old + newer},
        reference=True,
    )
    yield _create(
        "input_file.file_id", "file-", _user({"type": "input_file", "file_id": "ID"})
    )
    yield _create(
        "input_image.file_id", "file-", _user({"type": "input_image", "file_id": "ID"})
    )
    yield _create(
        "output of a function call with a file",
        "file-",
        {
            "input": [
                {
                    "type": "function_call_output",
                    "call_id": "call_1",
                    "output": [{"type": "input_file", "file_id": "ID"}],
                }
            ]
        },
    )
    for what, tool, kind in (
        ("vector_store_ids", {"type": "file_search", "vector_store_ids": ["ID"]}, "vs"),
        ("container", {"type": "code_interpreter", "container": "ID"}, "cntr"),
        (
            "container.file_ids",
            {
                "type": "code_interpreter",
                "container": {"type": "auto", "file_ids": ["ID"]},
            },
            "file-",
        ),
        (
            "environment.container_id",
            {
                "type": "shell",
                "environment": {"type": "container_reference", "container_id": "ID"},
            },
            "cntr",
        ),
        (
            "input_image_mask.file_id",
            {"type": "image_generation", "input_image_mask": {"file_id": "ID"}},
            "file-",
        ),
    ):
        yield _create(f"tools[].{what}", kind, {"tools": [tool]})
    variable = {"type": "input_file", "file_id": "ID"}
    yield _create(
        "prompt.variables",
        "file-",
        {"prompt": {"id": "pmpt_1", "variables": {"doc": variable}}},
    )
    message = {"role": "user", "content": [{"type": "file", "file": {"file_id": "ID"}}]}
    yield Attack(
        "POST /v1/chat/completions: file.file_id",
        "file-",
        "POST",
        "/chat/completions",
        NOT_FOUND,
        json.dumps({"model": MODEL, "messages": [message]}),
    )
    reference = json.dumps({"items": [{"type": "item_reference", "id": "ID"}]})
    for path in ("/conversations", "/conversations/OWN_conv/items"):
        yield Attack(
            f"POST /v1{path}: item reference",
            "msg",
            "POST",
            path,
            NOT_FOUND,
            reference,
            reference=True,
        )
    for path, name in (
        ("/vector_stores", "file_ids"),
        ("/vector_stores/OWN_vs/files", "file_id"),
        ("/vector_stores/OWN_vs/file_batches", "file_ids"),
        ("/containers", "file_ids"),
        ("/containers/OWN_cntr/files", "file_id"),
    ):
        value: object = ["ID"] if name.endswith("s") else "ID"
        yield Attack(
            f"POST /v1{path}: {name}",
            "file-",
            "POST",
            path,
            NOT_FOUND,
            json.dumps({"name": "x", name: value}),
        )


def in_frames() -> Iterator[FrameAttack]:
    """Every socket frame that may hold an id."""

    def create(**given: Any) -> str:
        frame = {"type": "response.create", "model": MODEL, "input": "hi", **given}
        return json.dumps(frame)

    reference = [{"type": "item_reference", "id": "ID"}]
    file = {"type": "input_file", "file_id": "ID"}
    store = {"type": "file_search", "vector_store_ids": ["ID"]}
    for what, kind, frame, result in (
        ("previous_response_id", "resp", create(previous_response_id="ID"), PREVIOUS),
        (
            "previous_response_id on a lane",
            "resp",
            create(previous_response_id="ID", stream_id="lane"),
            PREVIOUS,
        ),
        ("conversation", "conv", create(conversation="ID"), NOT_FOUND),
        ("item reference", "msg", create(input=reference), NOT_FOUND),
        ("input_file.file_id", "file-", create(**_user(file)), NOT_FOUND),
        ("tools[].vector_store_ids", "vs", create(tools=[store]), NOT_FOUND),
        (
            "name there twice",
            "resp",
            create(previous_response_id="ID").replace(
                "}", ', "previous_response_id": null}'
            ),
            UNREADABLE,
        ),
        ("no JSON", "resp", "previous_response_id=ID", UNREADABLE),
    ):
        yield FrameAttack(f"response.create: {what}", kind, frame, result)
    binary = create(previous_response_id="ID")
    yield FrameAttack("binary frame", "resp", binary, UNREADABLE, binary=True)
    for type_ in ("response.steer", "response.processed", "response.interrupt"):
        name = "previous_response_id" if type_ == "response.steer" else "response_id"
        result = PREVIOUS if type_ == "response.steer" else NOT_FOUND
        frame = json.dumps({"type": type_, name: "ID", "input": "x"})
        yield FrameAttack(f"{type_}: {name}", "resp", frame, result)
    for what, odd in (("half a surrogate pair", '"\\ud800"'), ("1e999", "1e999")):
        frame = f'{{"type": "response.cancel", "response_id": "ID", "id": {odd}}}'
        yield FrameAttack(f"response.cancel: beside {what}", "resp", frame, UNREADABLE)
    steer = {"type": "response.steer", "input": reference}
    yield FrameAttack(
        "response.steer: item reference", "msg", json.dumps(steer), NOT_FOUND
    )
    other = json.dumps({"type": "session.update", "anything": "ID"})
    yield FrameAttack("frame of another type", "resp", other, UNREADABLE)


HTTP = (*in_paths(), *in_bodies(), *hidden(), *closed())
FRAMES = tuple(in_frames())
