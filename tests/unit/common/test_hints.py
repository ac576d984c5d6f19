"""Hints: sources in the documented order, and no harm from odd bodies."""

import json
from typing import Any

import pytest

from libs.common.hints import read_hints

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
