"""Vector stores, containers and batches. Each belongs to the account that created it;
what they do is not simulated."""

import time
from collections.abc import Callable

from libs.simulator.api import errors
from libs.simulator.api.pages import page
from libs.simulator.exchange import Call, Handler
from libs.simulator.state.ids import random_hex
from libs.simulator.state.state import State, StoredObject
from libs.simulator.wire import Answer, Json, json_answer

_BATCH_SECONDS = 24 * 3600
_ID_HEX = 32


class Kept:
    """A collection with create, list, retrieve and delete, per account."""

    def __init__(
        self, state: State, prefix: str, about: Callable[[Call], Json]
    ) -> None:
        self._state = state
        self._prefix = prefix
        self._about = about

    async def create(self, call: Call) -> Answer:
        for file_id in _file_ids(call):
            self._state.file(call.account, file_id)
        stored = self.made(call)
        self._state.objects.put(stored.about["id"], stored)
        return json_answer(stored.about)

    async def list_all(self, call: Call) -> Answer:
        shown = [
            stored.about
            for stored in self._state.objects.values()
            if stored.account == call.account.name
            and stored.about["id"].startswith(f"{self._prefix}_")
        ]
        return json_answer(page(shown, call.query))

    async def show(self, call: Call) -> Answer:
        return json_answer(self.found(call).about)

    async def delete(self, call: Call) -> Answer:
        about = self.found(call).about
        self._state.objects.pop(about["id"])
        gone = {"id": about["id"], "object": f"{about['object']}.deleted"}
        return json_answer({**gone, "deleted": True})

    def made(self, call: Call) -> StoredObject:
        about = {
            "id": f"{self._prefix}_{random_hex(_ID_HEX)}",
            "created_at": int(time.time()),
            **self._about(call),
        }
        return StoredObject(call.account.name, about)

    def found(self, call: Call) -> StoredObject:
        object_id = call.path["id"]
        if not object_id.startswith(f"{self._prefix}_"):
            raise errors.object_not_found(object_id)
        return self._state.stored_object(call.account, object_id)

    def routes(self, path: str) -> list[tuple[str, str, Handler]]:
        return [
            ("POST", path, self.create),
            ("GET", path, self.list_all),
            ("GET", f"{path}/{{id}}", self.show),
        ]


class VectorStores(Kept):
    """Vector stores and the files attached to them."""

    def __init__(self, state: State) -> None:
        super().__init__(state, "vs", _vector_store)

    def made(self, call: Call) -> StoredObject:
        stored = super().made(call)
        for file_id in _file_ids(call):
            self._put(stored, file_id, {})
        return stored

    async def add_file(self, call: Call) -> Answer:
        stored = self.found(call)
        file_id = _required(call, "file_id")
        self._state.file(call.account, file_id)
        attributes = call.body.get("attributes") or {}
        return json_answer(self._put(stored, file_id, attributes))

    async def list_files(self, call: Call) -> Answer:
        return json_answer(page(list(self.found(call).members.values()), call.query))

    def _put(self, stored: StoredObject, file_id: str, attributes: Json) -> Json:
        stored.members[file_id] = {
            "id": file_id,
            "object": "vector_store.file",
            "created_at": int(time.time()),
            "vector_store_id": stored.about["id"],
            "status": "completed",
            "usage_bytes": 0,
            "last_error": None,
            "attributes": attributes,
        }
        stored.about["file_counts"] = _file_counts(len(stored.members))
        return stored.members[file_id]

    def routes(self, path: str) -> list[tuple[str, str, Handler]]:
        return [
            *super().routes(path),
            ("DELETE", f"{path}/{{id}}", self.delete),
            ("POST", f"{path}/{{id}}/files", self.add_file),
            ("GET", f"{path}/{{id}}/files", self.list_files),
        ]


class Containers(Kept):
    """Containers of the code interpreter."""

    def __init__(self, state: State) -> None:
        super().__init__(state, "cntr", _container)

    def routes(self, path: str) -> list[tuple[str, str, Handler]]:
        return [*super().routes(path), ("DELETE", f"{path}/{{id}}", self.delete)]


class Batches(Kept):
    """Batches: in progress until they are canceled."""

    def __init__(self, state: State) -> None:
        super().__init__(state, "batch", _batch)

    async def cancel(self, call: Call) -> Answer:
        about = self.found(call).about
        if about["status"] == "in_progress":
            about |= {"status": "cancelled", "cancelled_at": int(time.time())}
        return json_answer(about)

    def routes(self, path: str) -> list[tuple[str, str, Handler]]:
        return [*super().routes(path), ("POST", f"{path}/{{id}}/cancel", self.cancel)]


def object_routes(state: State) -> list[tuple[str, str, Handler]]:
    """Every route of this module."""
    return [
        *VectorStores(state).routes("/vector_stores"),
        *Containers(state).routes("/containers"),
        *Batches(state).routes("/batches"),
    ]


def _vector_store(call: Call) -> Json:
    return {
        "object": "vector_store",
        "name": str(call.body.get("name") or ""),
        "status": "completed",
        "usage_bytes": 0,
        "file_counts": _file_counts(0),
        "metadata": call.body.get("metadata") or {},
    }


def _container(call: Call) -> Json:
    return {
        "object": "container",
        "name": _required(call, "name"),
        "status": "running",
        "last_active_at": int(time.time()),
        "expires_after": {"anchor": "last_active_at", "minutes": 20},
    }


def _batch(call: Call) -> Json:
    return {
        "object": "batch",
        "input_file_id": _required(call, "input_file_id"),
        "endpoint": _required(call, "endpoint"),
        "completion_window": str(call.body.get("completion_window") or "24h"),
        "status": "in_progress",
        "expires_at": int(time.time()) + _BATCH_SECONDS,
        "output_file_id": None,
        "error_file_id": None,
        "errors": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": call.body.get("metadata") or {},
    }


def _file_counts(completed: int) -> Json:
    counts = {"in_progress": 0, "failed": 0, "cancelled": 0}
    return {**counts, "completed": completed, "total": completed}


def _file_ids(call: Call) -> list[str]:
    """The file ids of a create request; all must belong to the caller."""
    named = call.body.get("file_ids")
    listed = named if isinstance(named, list) else []
    return [
        file_id
        for file_id in [*listed, call.body.get("input_file_id")]
        if isinstance(file_id, str)
    ]


def _required(call: Call, name: str) -> str:
    value = call.body.get(name)
    if not isinstance(value, str) or not value:
        raise errors.missing(name)
    return value
