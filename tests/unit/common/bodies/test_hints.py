"""Hints: sources in the documented order, and no harm from odd bodies."""

import json
from typing import Any

import pytest

from libs.common.bodies.hints import Hints, quick_hints, read_hints

PATH = b"/responses"


def hints(body: Any = None, headers: dict[str, str] | None = None, path: bytes = PATH):  # type: ignore[no-untyped-def]
    raw = b"" if body is None else json.dumps(body).encode()
    pairs = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
    return read_hints(path, pairs, raw)


FULL_BODY = {
    "metadata": {"session_id": "meta"},
    "client_metadata": {"session_id": "client"},
    "prompt_cache_key": "cache",
}


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        pytest.param(
            {"x-proxy-session-id": "a", "x-session-id": "b", "session-id": "c"},
            FULL_BODY,
            "a",
            id="x-proxy-session-id first",
        ),
        pytest.param({"session-id": "c", "x-session-id": "b"}, FULL_BODY, "b", id="x"),
        pytest.param({"session_id": "d", "session-id": "c"}, FULL_BODY, "c", id="dash"),
        pytest.param({"session_id": "d"}, FULL_BODY, "d", id="underscore"),
        pytest.param({}, FULL_BODY, "meta", id="metadata before client_metadata"),
        pytest.param(
            {}, {"client_metadata": {"session_id": "x"}, "prompt_cache_key": "k"}, "x",
            id="client_metadata before cache key",
        ),
        pytest.param({}, {"prompt_cache_key": "k"}, "k", id="cache key last"),
        pytest.param({}, {}, None, id="none"),
        pytest.param({}, {"metadata": {"session_id": 5}}, None, id="not a string"),
        pytest.param({"session-id": ""}, {"prompt_cache_key": "k"}, "k", id="empty"),
    ],
)  # fmt: skip
def test_session_source(
    headers: dict[str, str], body: dict[str, Any], expected: str | None
) -> None:
    assert hints(body, headers).session_id == expected


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        pytest.param(
            {"previous_response_id": "resp_1", "conversation": "conv_1"},
            PATH,
            ("resp_1", "conv_1"),
            id="previous before conversation",
        ),
        pytest.param(
            {"conversation": {"id": "conv_2"}}, PATH, ("conv_2",), id="object"
        ),
        pytest.param(None, b"/responses/resp_9/cancel", ("resp_9",), id="path"),
        pytest.param(
            {"input": [{"id": "rs_old"}, {"role": "user"}, {"id": "msg_new"}]},
            PATH,
            ("msg_new", "rs_old"),
            id="items, newest first",
        ),
        pytest.param({"input": [{"id": "mine"}]}, PATH, (), id="not minted upstream"),
        pytest.param(
            {"input": [{"id": "msg_0199f0a2-0000-7000-8000-000000000001"}]}, PATH, (),
            id="Codex's own",
        ),
        pytest.param(
            {"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]},
            PATH, ("file-1",), id="a file in the input",
        ),
        pytest.param(
            {"tools": [{"vector_store_ids": ["vs_1"]}, {"container": "cntr_1"}]},
            PATH, ("vs_1", "cntr_1"), id="tools",
        ),
        pytest.param(
            {"tools": [{"container": {"type": "auto", "file_ids": ["file-2"]}}]},
            PATH, ("file-2",), id="files in a container",
        ),
        pytest.param(
            {"previous_response_id": "resp_1", "file_ids": ["file-3"]}, PATH,
            ("resp_1", "file-3"), id="files last",
        ),
        pytest.param(
            {"input_file_id": "file-4"}, b"/batches", ("file-4",), id="a batch"
        ),
        pytest.param(
            None, b"/vector_stores/vs_2/files", ("vs_2",), id="vector store in the path"
        ),
        pytest.param({"input": "hello"}, PATH, (), id="text input"),
        pytest.param({"input": [1, 2, [3]]}, PATH, (), id="token input"),
    ],
)  # fmt: skip
def test_bound_ids(body: Any, path: bytes, expected: tuple[str, ...]) -> None:
    assert hints(body, path=path).bound_ids == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        pytest.param(
            [{"type": "reasoning", "encrypted_content": "gAAA"}], True, id="y"
        ),
        pytest.param(
            [{"type": "reasoning", "encrypted_content": None}], False, id="null"
        ),
        pytest.param(
            [{"type": "message", "content": "encrypted_content"}], False, id="n"
        ),
    ],
)
def test_encrypted_content_binds_to_the_account(
    items: list[dict[str, Any]], expected: bool
) -> None:
    assert hints({"input": items}).account_bound is expected


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b"[]", b"5", b'{"model": 5, "input": {"a": 1}}', b"null"],
)
def test_odd_bodies_give_no_hints(raw: bytes) -> None:
    found = read_hints(PATH, [], raw)
    assert (found.model, found.session_id, found.bound_ids) == (None, None, ())


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(rb'"input": "a cut emoji \ud83d"', id="lone surrogate"),
        pytest.param(b'"input": "\xff"', id="bad UTF-8"),
        pytest.param(b'"metadata": [1]', id="another shape"),
    ],
)
def test_one_odd_value_costs_no_other_hint(odd: bytes) -> None:
    raw = b'{"previous_response_id": "resp_1", "prompt_cache_key": "k", ' + odd + b"}"
    found = read_hints(PATH, [], raw)
    assert (found.bound_ids, found.session_id) == (("resp_1",), "k")


def test_encrypted_content_is_seen_beside_half_an_emoji() -> None:
    raw = rb'{"input": [{"id": "rs_1", "encrypted_content": "g"}, {"x": "\ud83d"}]}'
    found = read_hints(PATH, [], raw)
    assert (found.bound_ids, found.account_bound) == (("rs_1",), True)


def test_ids_in_a_path_are_bounded() -> None:
    assert len(hints(path=b"/rs_" * 9000).bound_ids) < 16


def test_model_stream_pool_and_name() -> None:
    found = hints(
        {
            "model": "m",
            "stream": True,
            "metadata": {"pool_id": "p", "session_name": "n"},
        },
        {"x-pool-id": "q"},
    )
    assert (found.model, found.stream, found.pool_id, found.session_name) == (
        "m",
        True,
        "q",
        "n",
    )


def test_absurdly_long_ids_are_cut() -> None:
    assert len(hints({"prompt_cache_key": "k" * 5000}).session_id) == 512


# Isolation -----------------------------------------------------------------------


def isolated(body: Any, path: bytes = PATH, headers: Any = ()) -> Hints:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_hints(path, headers, raw, isolate=True)


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        pytest.param(
            {"previous_response_id": "resp_1", "conversation": {"id": "conv_1"}},
            b"/responses/resp_2/x", ("resp_1", "resp_2", "conv_1"), id="first ids",
        ),
        pytest.param({"file_id": "file-1", "file_ids": ["file-2", None]}, PATH,
                     ("file-1", "file-2"), id="files"),
        pytest.param({"files": [{"file_id": "file-1"}]}, PATH, ("file-1",),
                     id="a batch of files"),
        pytest.param({"input_file_id": "file-1"}, PATH, ("file-1",), id="a batch"),
        pytest.param({"input": [{"content": [{"file_id": "file-1"}]},
                                {"output": [{"file_id": "file_2"}]},
                                {"output": {"file_id": "file-3"}}]},
                     PATH, ("file-3", "file_2", "file-1"), id="input"),
        pytest.param({"items": [{"content": [{"file_id": "file-1"}]}]}, PATH,
                     ("file-1",), id="items"),
        pytest.param({"messages": [{"content": "x"},
                                   {"content": [{"file": {"file_id": "file-1"}}]}]},
                     PATH, ("file-1",), id="chat"),
        pytest.param({"tools": [{"vector_store_ids": ["vs_1", "vs_2"]},
                                {"container": "cntr_1"},
                                {"container": {"type": "auto", "file_ids": ["file-1"]}},
                                {"input_image_mask": {"file_id": "file-2"}}]},
                     PATH, ("vs_1", "vs_2", "cntr_1", "file-1", "file-2"), id="tools"),
        pytest.param({"tools": [{"environment": {"container_id": "cntr_1",
                                                 "file_ids": ["file-1"]}}]},
                     PATH, ("cntr_1", "file-1"), id="environment of a tool"),
        pytest.param({"input_image_mask": {"file_id": "file-2"}}, PATH, ("file-2",),
                     id="mask"),
        pytest.param({"prompt": {"variables": {"a": "x", "b": {"file_id": "file-1"}}}},
                     PATH, ("file-1",), id="prompt"),
        pytest.param({"training_file": "file-1"}, PATH, ("file-1",), id="tuning"),
        pytest.param({"tool_resources": {"file_search":
                                         {"vector_store_ids": ["vs_1"]}}}, PATH,
                     ("vs_1",), id="tool resources"),
        pytest.param({"file_id": "assistant-xyz"}, PATH, ("assistant-xyz",),
                     id="another upstream's form"),
        pytest.param({"tools": [{"vector_store_ids": ["vs_1", "vs_1"]}]}, PATH,
                     ("vs_1",), id="twice"),
        pytest.param({"metadata": {"file_id": "file-1", "input": [{"id": "rs_1"}]},
                      "model": "m"}, PATH, (), id="look-alike"),
    ],
)  # fmt: skip
def test_all_named_ids(body: Any, path: bytes, expected: tuple[str, ...]) -> None:
    assert isolated(body, path).named == expected


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param([], id="only such items"),
        pytest.param([{"id": "mine"}], id="beside another item"),
    ],
)
@pytest.mark.parametrize(
    ("member", "named"),
    [
        ({}, ()),
        ({"file_id": "file-1"}, ("file-1",)),
        ({"container_id": "cntr_1"}, ("cntr_1",)),
        ({"environment": {"container_id": "cntr_1"}}, ("cntr_1",)),
        ({"output": [{"file_id": "file-1"}]}, ("file-1",)),
    ],
)
def test_an_item_with_text_may_name_objects(
    member: dict[str, Any], named: tuple[str, ...], beside: list[Any]
) -> None:
    item = {"type": "message", "role": "user", "content": "x", **member}
    found = isolated({"input": [item, *beside]})
    assert (*found.named, *found.references) == named


def test_without_isolation_no_ids_are_collected() -> None:
    found = hints({"file_id": "file-1", "input": [{"id": "rs_1"}]})
    assert (found.named, found.references, found.problem) == ((), (), None)


def test_ids_in_the_path_are_named_without_a_body() -> None:
    found = read_hints(b"/files/file_1/content", [], b"", isolate=True)
    assert (found.named, found.problem) == (("file_1",), None)


OTHERS = [{"id": f"msg_new{n}", "type": "message", "content": "x"} for n in range(8)]


@pytest.mark.parametrize(
    ("item", "referenced"),
    [
        ({"type": "item_reference"}, True),
        ({}, True),
        ({"type": None}, True),
        ({"type": "item_reference", "content": "x", "role": "user"}, True),
        ({"content": "no role, so a reference"}, True),
        ({"role": "user", "content": "x"}, False),
        ({"type": "message", "content": []}, True),
        ({"type": "message", "content": [{"type": "input_text"}]}, False),
        ({"type": "reasoning", "summary": []}, True),
        ({"type": "reasoning", "encrypted_content": None}, True),
        ({"type": "reasoning", "encrypted_content": "gAAA"}, False),
        ({"type": "function_call", "arguments": "{}"}, False),
        ({"type": "function_call"}, True),
        ({"type": "custom_tool_call", "input": "x"}, False),
        ({"type": "function_call_output", "output": ""}, False),
        ({"type": "function_call_output", "output": None}, True),
        ({"type": "image_generation_call"}, True),
        ({"type": "web_search_call", "status": "completed"}, True),
    ],
)
def test_references(item: dict[str, Any], referenced: bool) -> None:
    found = isolated({"input": [{"id": "rs_old", **item}, *OTHERS]})
    newest = tuple(item["id"] for item in reversed(OTHERS))
    assert found.references == (*newest, *(("rs_old",) if referenced else ()))


def test_items_of_a_conversation_are_references() -> None:
    assert isolated({"items": [{"id": "msg_1"}]}).references == ("msg_1",)


def test_a_background_request_says_so() -> None:
    assert isolated({"background": True}).background
    assert hints({"background": True}).background
    assert not hints({"background": "yes"}).background


@pytest.mark.parametrize(
    "raw",
    [
        b"[]", b"5", b"{", b"null", b"{} {}", b'{"a":1}x', b'{"a":NaN}', b"{'a':1}",
        b'{"a":1,}', b'{"a":"\xff"}', b'\xef\xbb\xbf{"a":1}', b"\x00",
        '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32-le"),
    ],
)  # fmt: skip
def test_what_may_be_read_in_another_way_is_unreadable(raw: bytes) -> None:
    assert isolated(raw).problem == "unreadable"
    assert read_hints(PATH, [], raw).problem is None


@pytest.mark.parametrize(
    "body",
    [{}, {"model": 5}, {"metadata": [1]}, {"input": [1, {"id": 5}]}, {"a": "\ud83d"}],
)
def test_an_odd_value_is_no_problem(body: Any) -> None:
    assert isolated(body).problem is None


def test_multipart_is_told_apart() -> None:
    kind = [(b"content-type", b"multipart/form-data; boundary=b")]
    assert isolated(b"--b\r\n", headers=kind).problem == "multipart"


def test_too_many_ids_are_a_problem() -> None:
    ids = [f"file-{n}" for n in range(513)]
    assert isolated({"file_ids": ids}).problem == "too_many_ids"
    assert isolated({"file_ids": ids[1:]}).problem is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"tools":[{"vector_store_ids":["vs_\\ud83d"]}]}',
        b'{"input":[{"id":"msg_\\ud83d"}]}',
        b'{"conversation":"conv_\\ud83d"}',
        b'{"file_id":"file-\\ud83d"}',
    ],
)
@pytest.mark.parametrize("isolate", [False, True])
def test_half_a_surrogate_pair_in_an_id_is_replaced(body: bytes, isolate: bool) -> None:
    hints = read_hints(b"/responses", [], body, isolate)
    (id_,) = hints.bound_ids
    assert id_.endswith(("_?", "-?"))
    for ids in (hints.bound_ids, hints.named, hints.references):
        assert "".join(ids).isascii()


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(
    ("body", "continues"),
    [
        (b"", False),
        (b"{}", False),
        (b'{"model":"m"}', False),
        (b'{"previous_response_id":null}', True),
        (b'{"previous_response_id":""}', True),
        (b'{"previous_response_id":"resp_1"}', True),
        (b'{"previous_response_id":"resp_1","previous_response_id":null}', True),
        (b'{"previous\\u005fresponse_id":null}', True),
        (b'{"conversation":null}', True),
        (b'{"conversation":""}', True),
        (b'{"conversation":{"id":"conv_1"}}', True),
    ],
)
def test_a_member_that_may_name_state_is_seen_whatever_it_says(
    body: bytes, *, continues: bool, isolate: bool
) -> None:
    hints = quick_hints(b"/responses", [], body, isolate)
    assert hints is not None
    assert hints.continues is continues


def test_steps_do_not_know_that_there_is_no_such_member() -> None:
    assert read_hints(b"/responses", [], b'{"model":5}', isolate=True).continues
