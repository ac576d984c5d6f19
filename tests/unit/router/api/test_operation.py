"""Declared operations: bodies and queries are validated by their models, errors name
the field, results are sent."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from falcon.asgi import Response, SSEvent
from pydantic import AfterValidator, BeforeValidator, Field

from libs.common.contracts.catalogue import Frozen
from services.router.api.operation import (
    EVENTS,
    LARGEST_BODY,
    Operation,
    invalid,
    operations,
)
from tests.support.values.admin import client, problem


def _no_test(value: str) -> str:
    if value == "hush":
        raise ValueError("it is taken.")
    return value


class Part(Frozen):
    weight: float = 1


class Thing(Frozen):
    name: Annotated[str, Field(max_length=5), AfterValidator(_no_test)] = "none"
    parts: tuple[Part, ...] = ()
    few: bool = True


def _few(value: str) -> int:
    if value not in {"1", "2"}:
        raise ValueError("give 1 or 2")
    return int(value)


class Which(Frozen):
    number: Annotated[int, BeforeValidator(_few)] = 1
    word: str | None = None


class Things:
    @Operation(returns=Thing, problems=(409,))
    async def on_post(self, body: Thing) -> Thing:
        """Adds a
        thing."""
        return body

    @Operation()
    async def on_get(self, query: Which) -> dict[str, Any]:
        """Lists things."""
        return query.model_dump()


class OneThing:
    @Operation(
        status=201, largest_body=10, empty_body=b"{}", hint="Send a word.", secret=True
    )
    async def on_put(self, name: str, body: Thing) -> dict[str, str]:
        """Puts a thing."""
        return {name: body.name}

    @Operation(media="text/plain; charset=utf-8")
    async def on_get(self, name: str, resp: Response) -> bytes:
        """One thing."""
        resp.status = 503
        return name.encode()

    async def on_delete(self, *_: object) -> None:
        """Not declared."""


class Stream:
    @Operation(media=EVENTS)
    async def on_get(self) -> AsyncIterator[SSEvent]:
        """Streams."""
        return self._events()

    async def _events(self) -> AsyncIterator[SSEvent]:
        yield SSEvent(event="state", data=b"{}")


RESOURCES = {"/things": Things(), "/things/{name:path}": OneThing(), "/s": Stream()}
API = client(RESOURCES)


@pytest.mark.parametrize(("body", "name"), [(b"{}", "none"), (b'{"name":"a"}', "a")])
def test_a_body_is_read(body: bytes, name: str) -> None:
    sent = API.simulate_post("/things", body=body).json
    assert sent == {"name": name, "parts": [], "few": True}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"[" * 100_000, None),
        (b'{"name":"longer"}', "name"),
        (b'{"name":"hush"}', "name"),
        (b'{"surprise":1}', "surprise"),
        (b'{"parts":[{},{"weight":"hush"}]}', "parts.1.weight"),
        (b"", None),
        (b'{"few":1}', "few"),  # no boolean
        (b'{"name":"\xff"}', None),
    ],
)
def test_an_error_in_a_body_is_named_and_no_value_repeated(
    body: bytes, param: str | None
) -> None:
    result = API.simulate_post("/things", body=body)
    assert problem(result) == (400, "invalid_request", param)
    assert "hush" not in result.text
    assert "The fields of Thing are described at /docs." in result.text


def test_a_cause_is_one_sentence() -> None:
    result = API.simulate_post("/things", body=b'{"name":"hush"}')
    assert result.json["error"]["message"].startswith("name: it is taken. The fields")


def test_the_largest_body_that_is_read() -> None:
    body = b"{}".ljust(LARGEST_BODY)
    assert API.simulate_post("/things", body=body).status_code == 200
    result = API.simulate_post("/things", body=body + b" ")
    assert problem(result) == (413, "body_too_large", None)


def test_rules_of_one_body() -> None:
    result = API.simulate_put("/things/a", body=b'{"name":   "a"}')
    assert problem(result) == (413, "body_too_large", None)
    result = API.simulate_put("/things/a", body=b"{")
    assert result.json["error"]["message"].endswith(". Send a word.")
    result = API.simulate_put("/things/a")
    assert (result.status_code, result.json) == (201, {"a": "none"})
    assert result.headers["cache-control"] == "no-store, no-transform"


def test_path_parameters_and_the_status() -> None:
    result = API.simulate_put("/things/a/b", body=b"{}")
    assert (result.status_code, result.json) == (201, {"a/b": "none"})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"number": 1, "word": None}),
        ("number=&word=", {"number": 1, "word": None}),
        ("number=2&word=a%20b&unknown=1", {"number": 2, "word": "a b"}),
        ("number=1&number=2", {"number": 2, "word": None}),
    ],
)
def test_a_query(query: str, expected: dict[str, Any]) -> None:
    assert API.simulate_get("/things", query_string=query).json == expected


def test_an_error_in_a_query_names_the_parameter() -> None:
    result = API.simulate_get("/things", query_string="number=hush")
    assert problem(result) == (400, "invalid_query", "number")
    assert result.json["error"]["message"] == "number: give 1 or 2."


def test_bytes_are_sent_as_they_are_and_the_status_can_be_another() -> None:
    result = API.simulate_get("/things/a")
    assert (result.status_code, result.text) == (503, "a")
    assert result.headers["content-type"] == "text/plain; charset=utf-8"
    assert result.headers["cache-control"] == "no-store"


def test_events_are_streamed_without_buffers_between() -> None:
    result = API.simulate_get("/s")
    assert result.text.startswith("event: state\ndata: {}\n")
    assert result.headers["content-type"] == "text/event-stream"
    assert result.headers["x-accel-buffering"] == "no"


def test_what_is_declared_is_known_by_path_and_method() -> None:
    found = operations(RESOURCES)
    assert set(found) == {
        ("/things", "post"), ("/things", "get"), ("/things/{name}", "put"),
        ("/things/{name}", "get"), ("/s", "get"),
    }  # fmt: skip
    added = Operation("Adds a thing.", returns=Thing, body=Thing, problems=(409,))
    assert found["/things", "post"] == added
    assert found["/things", "get"].query is Which


def test_an_error_that_only_the_responder_can_find() -> None:
    error = invalid("name", "it is taken", Thing)
    assert (error.status, error.code, error.param) == (400, "invalid_request", "name")
    assert error.message == (
        "name: it is taken. The fields of Thing are described at /docs."
    )
