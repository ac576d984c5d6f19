"""Header fields of a request that the server itself acts on: `Host`, framing, content
type, `Origin`, `Expect`, `Upgrade`."""

from collections.abc import Callable
from typing import Final

from libs.common.bodies.hints import NAMING_HEADERS
from libs.common.headers import Header, find
from libs.common.name_table import NameTable
from services.gateway import errors
from services.gateway.content.headers import (
    ACCEPT_ENCODING,
    coding_line,
    line_start,
    names_others,
)
from services.gateway.errors import Problem
from services.gateway.server.request import origin_form, valid_host

LARGEST_HEAD: Final = 65_536  # bytes; also of trailers and chunk extensions
MOST_HEADERS: Final = 128


class HeadFields:
    """What one head says. The parser keeps one object for all heads of a connection.

    Most requests only set `host` and `content_type`. `uncommon` is true when any
    other field is set, so that the rest costs one test.
    """

    __slots__ = (
        "_valid_host", "coding", "content_type", "expects", "host", "lines",
        "names_connection", "origin", "plain", "problem", "repeats", "told",
        "transfer_coded", "uncommon", "upgrade"
    )  # fmt: skip

    def __init__(self) -> None:
        self._valid_host: bytes | None = None  # the last Host that was valid
        self.host: bytes | None = None
        self.content_type: bytes | None = None
        self.lines: list[bytes] = []  # for the upstream
        self.told: list[Header] = []  # see `Request.told`
        self.reset_uncommon()

    def reset_uncommon(self) -> None:
        self.uncommon = False
        self.problem: Problem | None = None  # why the request is refused
        self.coding: bytes | None = None
        self.origin: bytes | None = None
        self.upgrade: bytes | None = None  # protocols, comma-separated
        self.expects = False  # 100 Continue
        self.repeats = False  # Content-Type or Content-Encoding
        self.names_connection = False
        self.transfer_coded = False
        self.plain = True  # `lines` are those for the upstream

    def refuse(self, problem: Problem) -> None:
        """Refuse the request once its head is complete."""
        self.problem, self.uncommon = problem, True

    def _see_host(self, value: bytes) -> None:
        if self.host is not None:
            self.refuse(errors.bad_host())
        elif value != self._valid_host:
            value = value.strip(b" \t")
            if valid_host(value):
                self._valid_host = value
            else:
                self.refuse(errors.bad_host())
        self.host = value

    def _see_content_type(self, value: bytes) -> None:
        if self.content_type is not None:
            self.repeats = self.uncommon = True
        self.content_type = self.content_type or value

    def _see_content_encoding(self, value: bytes) -> None:
        self.repeats = self.repeats or self.coding is not None
        self.coding = self.coding or value
        self.uncommon = True

    def _see_transfer_encoding(self, value: bytes) -> None:
        self.transfer_coded = self.uncommon = True
        if value.lower() != b"chunked":
            self.refuse(errors.unknown_framing())

    def _see_origin(self, value: bytes) -> None:
        self.origin, self.uncommon = value, True

    def _see_expect(self, value: bytes) -> None:
        self.expects, self.uncommon = value.lower() == b"100-continue", True

    def _see_upgrade(self, value: bytes) -> None:
        earlier = b"" if self.upgrade is None else self.upgrade + b", "
        self.upgrade, self.uncommon = earlier + value.lower(), True

    def _see_connection(self, value: bytes) -> None:
        self.names_connection = self.uncommon = True
        if names_others((b"connection", value)):
            self.plain = False  # headers of one connection are among the lines

    def _see_accept_encoding(self, value: bytes) -> None:
        self.lines.append(coding_line(value))

    # Of a complete head --------------------------------------------------------

    def origin_form(
        self, target: bytes, headers: list[Header]
    ) -> tuple[bytes, list[Header]]:
        """The path of a target that is a complete URL, and `headers` with its host,
        which replaces the Host header (RFC 9112 section 3.2.2)."""
        host, path = origin_form(target)
        if host is None:
            return path, headers
        if not valid_host(host):
            self.refuse(errors.bad_host())
        return path, [(b"host", host), *(h for h in headers if h[0] != b"host")]

    def check_size(self, target: bytes, headers: list[Header]) -> None:
        if len(headers) > MOST_HEADERS:
            self.refuse(errors.too_many_headers(MOST_HEADERS))
            return
        size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
        if size > LARGEST_HEAD:
            self.refuse(errors.head_too_large(LARGEST_HEAD))

    def check_version(self, version: str) -> None:
        if version == "1.1":
            if self.host is None:
                self.refuse(errors.bad_host())
        elif version != "1.0":
            self.refuse(errors.unknown_version())
        elif self.transfer_coded and self.problem is None:
            self.refuse(errors.unknown_framing())


def announced_length(headers: list[Header]) -> int:
    """Bytes that Content-Length announces; 0 without one. llhttp has checked it."""
    value = find(headers, b"content-length")
    return int(value) if value is not None and value.isdigit() else 0


def _telling(name: bytes) -> "See":
    def see(fields: HeadFields, value: bytes) -> None:
        fields.told.append((name, value))

    return see


See = Callable[[HeadFields, bytes], None]
WATCHED: dict[bytes, See] = {
    ACCEPT_ENCODING: HeadFields._see_accept_encoding,
    b"connection": HeadFields._see_connection,
    b"content-encoding": HeadFields._see_content_encoding,
    b"content-type": HeadFields._see_content_type,
    b"expect": HeadFields._see_expect,
    b"host": HeadFields._see_host,
    b"origin": HeadFields._see_origin,
    b"proxy-connection": HeadFields._see_connection,  # llhttp reads it as Connection
    b"transfer-encoding": HeadFields._see_transfer_encoding,
    b"upgrade": HeadFields._see_upgrade,
}
"""By lower-case name: the method that takes the value."""
WATCHED |= {
    name: _telling(name) for name in (*NAMING_HEADERS, b"authorization", b"api-key")
}

Known = tuple[bytes, bytes, bytes, See | None]
"""Of a header name, as a client writes it: the name, the same in lower case, what its
line for the upstream begins with (empty without one), and the method that takes the
value."""


def _known(name: bytes) -> Known:
    lower = name.lower()
    return name, lower, line_start(lower), WATCHED.get(lower)


NAMES: Final[NameTable[Known]] = NameTable(_known)
"""By name as clients write it."""
