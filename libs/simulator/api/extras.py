"""Resources beside /responses: models, chat completions, embeddings, files."""

import email.parser
import email.policy
import time
from collections.abc import AsyncGenerator, Sequence

from libs.simulator.api import errors
from libs.simulator.api.create_request import input_items
from libs.simulator.exchange import Call
from libs.simulator.state.ids import random_hex
from libs.simulator.state.state import State, StoredFile
from libs.simulator.state.threads import Thread
from libs.simulator.wire import Answer, Json, Plain, Stream, encode, json_answer

_CREATED = 1_767_225_600
_DIMENSIONS = 8


class Models:
    """Lists models. Responses can be created with any model name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._models = {
            name: {
                "id": name,
                "object": "model",
                "created": _CREATED,
                "owned_by": "system",
            }
            for name in names
        }

    async def list_all(self, _: Call) -> Answer:
        return json_answer({"object": "list", "data": list(self._models.values())})

    async def show(self, call: Call) -> Answer:
        model = self._models.get(call.path["model"])
        if model is None:
            raise errors.model_not_found(call.path["model"])
        return json_answer(model)


async def chat(call: Call) -> Answer:
    """A chat completion, in one piece or streamed."""
    model = _model(call)
    thread = Thread().extended(input_items(call.body.get("messages")))
    text = f"Simulated answer from {call.account.name}: {thread.echo}".rstrip()
    shared: Json = {
        "id": f"chatcmpl-{random_hex(29)}",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }
    if call.body.get("stream") is True:
        return Stream(_chunks(shared, text))
    written = -(-len(text) // 4)
    return json_answer(
        {
            **shared,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": thread.tokens,
                "completion_tokens": written,
                "total_tokens": thread.tokens + written,
            },
        }
    )


async def _chunks(shared: Json, text: str) -> AsyncGenerator[bytes, None]:
    for delta, reason in (
        ({"role": "assistant", "content": ""}, None),
        ({"content": text}, None),
        ({}, "stop"),
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {**shared, "object": "chat.completion.chunk", "choices": [choice]}
        yield b"data: %b\n\n" % encode(chunk)
    yield b"data: [DONE]\n\n"


async def embeddings(call: Call) -> Answer:
    """A small vector for each input; the same input always gets the same vector."""
    model, given = _model(call), call.body.get("input")
    texts = given if isinstance(given, list) else [given]
    vectors = [
        {"object": "embedding", "index": index, "embedding": _vector(str(text))}
        for index, text in enumerate(texts)
    ]
    tokens = sum(-(-len(str(text)) // 4) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_answer(
        {"object": "list", "data": vectors, "model": model, "usage": usage}
    )


def _vector(text: str) -> list[float]:
    return [(len(text) * (n + 1) % 17) / 17 for n in range(_DIMENSIONS)]


def _model(call: Call) -> str:
    model = call.body.get("model")
    if not isinstance(model, str):
        raise errors.missing("model")
    return model


class Files:
    """Stores uploaded files per account."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def create(self, call: Call) -> Answer:
        name, content, purpose = _upload(call)
        file_id = f"file-{random_hex(24)}"
        about = {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        stored = StoredFile(call.account.name, about, content)
        self._state.files.put(file_id, stored, len(content))
        return json_answer(about)

    async def list_all(self, call: Call) -> Answer:
        shown = [
            stored.about
            for stored in self._state.files.values()
            if stored.account == call.account.name
        ]
        return json_answer({"object": "list", "data": shown, "has_more": False})

    async def show(self, call: Call) -> Answer:
        return json_answer(self._found(call).about)

    async def content(self, call: Call) -> Answer:
        content = self._found(call).content
        return Plain(content, content_type="application/octet-stream")

    async def delete(self, call: Call) -> Answer:
        file_id = self._found(call).about["id"]
        self._state.files.pop(file_id)
        return json_answer({"id": file_id, "object": "file", "deleted": True})

    def _found(self, call: Call) -> StoredFile:
        return self._state.file(call.account, call.path["id"])


def _upload(call: Call) -> tuple[str, bytes, str]:
    """Name, content and purpose of a multipart upload."""
    head = f"content-type: {call.headers.get('content-type', '')}\r\n\r\n"
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(head.encode() + call.raw)
    name, content, purpose = "", None, "user_data"
    for part in message.iter_parts():
        field = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        raw = payload if isinstance(payload, bytes) else b""
        if field == "file":
            name, content = part.get_filename() or "upload", raw
        elif field == "purpose":
            purpose = raw.decode().strip()
    if content is None:
        raise errors.missing("file")
    return name, content, purpose
