"""Which ids of a request are checked, and which bodies could hide some."""

from typing import Any

import pytest

from libs.common.bodies.hints import Hints, quick_hints, read_hints
from services.gateway.auth.endpoints import route_of
from services.gateway.auth.isolation import (
    asker_of,
    check_body,
    ids_beside,
    not_found,
    plain_asker,
)
from services.gateway.errors import Problem
from services.gateway.server.request import Request


def test_words_of_routes_are_no_ids() -> None:
    path = b"/vector_stores/vs_1/file_batches"
    hints = read_hints(path, [], b'{"file_ids":["file-1"]}', isolate=True)
    _, ids = asker_of("key:a", hints, route_of("POST", path), strict=True)
    assert sorted(ids) == ["file-1", "vs_1"]


def test_an_id_that_hides_behind_an_escape_is_found_where_nothing_is_strict() -> None:
    hints = read_hints(b"/responses/%72esp_1", [], b"", isolate=True)
    asker, ids = asker_of("", hints, None, strict=False)
    assert ids == ("resp_1",)
    assert asker.kinds == "n"


def test_children_and_items_may_be_unknown() -> None:
    path = b"/conversations/conv_1/items/msg_1"
    hints = read_hints(path, [], b"", isolate=True)
    asker, ids = asker_of("key:a", hints, route_of("GET", path), strict=True)
    assert dict(zip(ids, asker.kinds, strict=True)) == {"conv_1": "n", "msg_1": "r"}


@pytest.mark.parametrize("odd", [rb'"\ud800"', rb'"a\udc00b"', b"1e999", b"NaN"])
def test_a_frame_that_only_some_parsers_read_hides_no_id(odd: bytes) -> None:
    frame = b'{"type":"response.cancel","response_id":"resp_1","id":%b}'
    assert ids_beside(frame % b'"x"', strict=True) == ["resp_1", "x"]
    with pytest.raises(Problem) as refused:
        ids_beside(frame % odd, strict=True)
    assert refused.value.code == "invalid_json"
    assert ids_beside(frame % odd, strict=False) == []


def test_requests_without_ids_share_one_asker() -> None:
    made = [
        asker_of("key:a", Hints(), route_of("POST", b"/responses"), strict=True)[0]
        for _ in range(2)
    ]
    assert made[0] is made[1]


def refusal(path: str, body: bytes, *headers: tuple[bytes, bytes]) -> str | None:
    request = Request("POST", b"/v1" + path.encode(), list(headers))
    request.body = body
    request.repeats = [name for name, _ in headers].count(b"content-type") > 1
    hints = read_hints(path.encode(), headers, body, isolate=True)
    try:
        check_body(route_of("POST", path.encode()), hints, request, body)
    except Problem as problem:
        return problem.message
    return None


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b"{}", True),
        (b'{"previous_response_id":null}', True),
        (b'{"previous_response_id":"resp_1"}', False),
        (b'{"previous_response_id":"resp_1","previous_response_id":null}', False),
        (b'{"previous_response_id":"resp_1","previous_response_id":""}', False),
        (b'{"conversation":{"id":"conv_1"},"conversation":null}', False),
        (b'{"previous_response_id":"resp_1","previous\\u005fresponse_id":null}', False),
        (b'{"conversatio\\u006e":"conv_1","conversation":null}', False),
        (b'{"\\u0063onversation":"conv_1","conversation":""}', False),
    ],
)
def test_a_body_that_may_hide_an_id_is_looked_at(body: bytes, *, plain: bool) -> None:
    request = Request("POST", b"/v1/responses", [])
    request.body = body
    hints = quick_hints(b"/responses", [], body, isolate=True)
    assert hints is not None
    asker = plain_asker("key:a", hints, request, b"/responses")
    assert (asker is not None) is plain


JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"multipart/form-data; boundary=b")


@pytest.mark.parametrize(
    ("path", "body", "headers", "refused"),
    [
        ("/responses", b"{}", [JSON], None),
        ("/responses", b"", [], None),
        ("/responses", b"{}", [JSON, FORM], "two Content-Type"),
        ("/responses", b"[]", [JSON], "one JSON object"),
        ("/responses", b"--b\r\n\r\n--b--", [FORM], "is a form; send JSON"),
        ("/files", b"{}", [JSON], None),
        (
            "/files",
            b"--b--",
            [FORM, (b"content-encoding", b"gzip")],
            "send it uncompressed",
        ),
        (
            "/responses",
            b'{"previous_response_id":"resp_1","previous_response_id":null}',
            [JSON],
            "one JSON object",
        ),
        (
            "/responses",
            b'{"previous_response_id":"resp_1","previous_response_id":""}',
            [JSON],
            "one JSON object",
        ),
        (
            "/responses",
            b'{"conversation":"conv_1","conversation":null}',
            [JSON],
            "one JSON object",
        ),
        (
            "/responses",
            b'{"previous_response_id":"resp_1","previous\\u005fresponse_id":"resp_2"}',
            [JSON],
            "one JSON object",
        ),
        (
            "/responses",
            b'{"conversatio\\u006e":"conv_1","conversation":"conv_2"}',
            [JSON],
            "one JSON object",
        ),
        (
            "/responses",
            b'{"conversatio\\u006e":"conv_1","conver\\u0073ation":"conv_2"}',
            [JSON],
            "one JSON object",
        ),
        (
            "/responses",
            b'{"previous_response_id":"resp_1","input":"conversatio\\u006e"}',
            [JSON],
            None,
        ),
        ("/responses", b'{"previous_response_id":null}', [JSON], None),
        ("/images/edits", b'{"image":"x"}', [JSON], None),
        ("/images/edits", b'{"a":[{"file_id":"f"}]}', [JSON], "names a file"),
        ("/images/edits", b'{"a":"\\u0066ile_id"}', [JSON], "names a file"),
    ],
)
def test_bodies_that_could_hide_ids_are_refused(
    path: str, body: bytes, headers: Any, refused: str | None
) -> None:
    said = refusal(path, body, *headers)
    assert (said is None) if refused is None else (refused in (said or ""))


def test_the_largest_number_of_ids_is_told() -> None:
    items = ",".join(f'{{"type":"item_reference","id":"msg_{n}"}}' for n in range(600))
    said = refusal("/responses", b'{"input":[%b]}' % items.encode(), JSON)
    assert said is not None
    assert "more than 512 ids" in said


@pytest.mark.parametrize(
    ("id_", "status", "said"),
    [
        ("resp_1", 404, "Response with id 'resp_1' not found."),
        ("conv_1", 404, "Conversation with id 'conv_1' not found."),
        ("file-1", 404, "No such File object: file-1"),
        ("vs_1", 404, "Vector store with id 'vs_1' not found."),
        ("cntr_1", 404, "Container with id 'cntr_1' not found."),
        ("rs_1", 404, "Item with id 'rs_1' not found. Items are not"),
    ],
)
def test_unknown_ids_are_told_as_the_upstream_does(
    id_: str, status: int, said: str
) -> None:
    problem = not_found(id_, Hints(), None)
    assert (problem.status, problem.code) == (status, None)
    assert problem.message.startswith(said)
