"""What a request's header fields say to the server."""

import pytest

from libs.common.headers import Header
from services.gateway.server.head_fields import (
    LARGEST_HEAD,
    MOST_HEADERS,
    NAMES,
    WATCHED,
    HeadFields,
    announced_length,
)


def seen(*headers: Header) -> HeadFields:
    fields = HeadFields()
    for name, value in headers:
        WATCHED[name](fields, value)
    return fields


def code(fields: HeadFields) -> str | None:
    return None if fields.problem is None else fields.problem.code


def test_what_most_requests_say_is_not_uncommon() -> None:
    fields = seen((b"host", b"x:1"), (b"content-type", b"a/b"))
    assert (fields.host, fields.content_type) == (b"x:1", b"a/b")
    assert not fields.uncommon


@pytest.mark.parametrize(
    "header",
    [
        (b"connection", b"close"),
        (b"proxy-connection", b"close"),
        (b"content-encoding", b"zstd"),
        (b"expect", b"100-continue"),
        (b"host", b"a b"),
        (b"origin", b"http://page"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
    ],
)
def test_anything_else_is_and_can_be_reset(header: Header) -> None:
    fields = seen(header)
    states = [fields.uncommon]
    fields.reset_uncommon()
    states.append(fields.uncommon)
    assert states == [True, False]
    assert code(fields) is None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([(b"host", b"x")], None),
        ([(b"host", b" x\t")], None),
        ([(b"host", b"")], "bad_request"),
        ([(b"host", b"x"), (b"host", b"x")], "bad_request"),
        ([(b"transfer-encoding", b"Chunked")], None),
        ([(b"transfer-encoding", b"gzip, chunked")], "bad_request"),
    ],
)
def test_hosts_and_framing_are_checked(
    headers: list[Header], refused: str | None
) -> None:
    assert code(seen(*headers)) == refused


def test_a_host_that_was_valid_is_not_checked_again() -> None:
    fields = seen((b"host", b"x"))
    fields.host = None
    WATCHED[b"host"](fields, b"x")
    assert code(fields) is None
    fields.host = None
    WATCHED[b"host"](fields, b"a b")
    assert code(fields) == "bad_request"


def test_the_first_type_and_coding_count_and_repeats_are_told() -> None:
    fields = seen((b"content-type", b"a"), (b"content-type", b"b"))
    assert (fields.content_type, fields.repeats) == (b"a", True)
    fields = seen((b"content-encoding", b"a"), (b"content-encoding", b"b"))
    assert (fields.coding, fields.repeats) == (b"a", True)


def test_protocols_to_upgrade_to_are_joined() -> None:
    fields = seen((b"upgrade", b"WebSocket"), (b"upgrade", b"h2c"))
    assert fields.upgrade == b"websocket, h2c"


@pytest.mark.parametrize(
    ("headers", "target", "refused"),
    [
        ([], b"/", None),
        ([(b"x", b"y")] * MOST_HEADERS, b"/", None),
        ([(b"x", b"y")] * (MOST_HEADERS + 1), b"/", "headers_too_large"),
        ([(b"x", b"y" * LARGEST_HEAD)], b"/", "headers_too_large"),
        ([], b"/" * (LARGEST_HEAD + 1), "headers_too_large"),
    ],
)
def test_heads_have_a_size(
    headers: list[Header], target: bytes, refused: str | None
) -> None:
    fields = HeadFields()
    fields.check_size(target, headers)
    assert code(fields) == refused


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.1", [(b"host", b"x")], None),
        ("1.1", [], 400),
        ("1.0", [], None),
        ("1.0", [(b"transfer-encoding", b"chunked")], 501),
        ("2.0", [(b"host", b"x")], 505),
    ],
)
def test_versions_differ_in_what_they_need(
    version: str, headers: list[Header], status: int | None
) -> None:
    fields = seen(*headers)
    fields.check_version(version)
    assert (None if fields.problem is None else fields.problem.status) == status


@pytest.mark.parametrize(
    ("headers", "length"),
    [([], 0), ([(b"content-length", b"12")], 12), ([(b"content-length", b"x")], 0)],
)
def test_a_length_is_announced_in_digits(headers: list[Header], length: int) -> None:
    assert announced_length(headers) == length


@pytest.mark.parametrize(
    ("target", "path", "hosts", "refused"),
    [
        (b"http://a/b", b"/b", [b"a"], None),
        (b"http://a b/c", b"/c", [b"a b"], "bad_request"),
        (b"*", b"/*", [b"x", b"y"], None),
    ],
)
def test_the_host_of_a_complete_url_replaces_all_others(
    target: bytes, path: bytes, hosts: list[bytes], refused: str | None
) -> None:
    fields = HeadFields()
    given = [(b"host", b"x"), (b"a", b"b"), (b"host", b"y")]
    found, headers = fields.origin_form(target, given)
    assert (found, code(fields)) == (path, refused)
    assert [value for name, value in headers if name == b"host"] == hosts
    assert (b"a", b"b") in headers


def test_a_name_is_known_however_it_is_written() -> None:
    assert NAMES.placed(b"X-Odd-Name", [], 0) == (
        b"X-Odd-Name", b"x-odd-name", b"x-odd-name: ", None
    )  # fmt: skip
    _, name, start, see = NAMES.placed(b"Authorization", [], 0)
    assert (name, start) == (b"authorization", b"")
    assert see is WATCHED[b"authorization"]


def test_who_asks_and_for_what_is_kept_apart() -> None:
    told = [
        (b"authorization", b"Bearer a"),
        (b"api-key", b"k"),
        (b"session_id", b"s"),
        (b"x-pool-id", b"p"),
    ]
    fields = seen(*told)
    assert (fields.told, fields.uncommon) == (told, False)


@pytest.mark.parametrize(
    ("value", "plain"), [(b"keep-alive", True), (b"close", True), (b"x-hop", False)]
)
def test_a_connection_header_may_name_others(value: bytes, plain: bool) -> None:
    assert seen((b"connection", value)).plain is plain
