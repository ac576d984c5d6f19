"""Relays the upstream's list of models as one key may see it. The list is read whole:
nobody waits for its first byte."""

from collections.abc import Awaitable

from libs.common.headers import Header, find
from libs.common.providers.key_echoes import SentKey
from services.gateway import errors
from services.gateway.capture.capture import Capture
from services.gateway.content.coding import decompressed
from services.gateway.content.headers import without_limit_lines
from services.gateway.proxy.relay import Relay
from services.gateway.routing.visible_models import VisibleModels
from services.gateway.server.connection import Connection
from services.gateway.upstream.client import Answer

LARGEST = 2_097_152  # bytes of a list, plain or compressed
# They describe the upstream's bytes.
_OF_BYTES = frozenset(
    {b"content-length", b"content-encoding", b"etag", b"last-modified",
     b"content-md5", b"digest", b"content-digest", b"accept-ranges"}
)  # fmt: skip


def without_length(headers: list[Header]) -> list[Header]:
    """The headers of a list that is changed."""
    return [header for header in headers if header[0] not in _OF_BYTES]


class ModelListRelay(Relay):
    """Relays one list."""

    def __init__(
        self,
        answer: Answer,
        connection: Connection,
        capture: Capture | None,
        sent: SentKey,
        visible: VisibleModels,
    ) -> None:
        self._coding = find(answer.headers, b"content-encoding")
        answer.headers = without_length(answer.headers)
        super().__init__(answer, connection, capture, sent)
        self._visible = visible

    def start(self, ours: bytes, limits: bytes | None = None) -> Awaitable[None]:
        return self._relay(ours, limits)

    async def _relay(self, ours: bytes, limits: bytes | None) -> None:
        """Raises a `Problem` for a list that cannot be read, or an `UpstreamError` when
        it did not come whole. Nothing was sent then."""
        body = self._sent.masked(self._shown(await self._read()))
        answer = self._answer
        length: list[Header] = [(b"content-length", b"%d" % len(body))]
        answer.headers = [*answer.headers, *length]
        head = self._writer.begin(answer.status, answer.headers, ours)
        if limits is not None:
            head = without_limit_lines(head)[:-2] + limits + b"\r\n"
        self._head = self._sent.masked(head)
        self._take_whole(body)

    async def _read(self) -> bytes:
        body = bytearray()
        while chunk := await self._answer.next():
            body += chunk
            if len(body) > LARGEST:
                raise errors.models_unreadable("is too large")
        if self._coding is None:
            return bytes(body)
        plain = decompressed(bytes(body), self._coding, LARGEST)
        if plain is None or len(plain) > LARGEST:
            raise errors.models_unreadable("cannot be decompressed")
        return plain

    def _shown(self, body: bytes) -> bytes:
        listed = self._visible.listed(body)
        if listed is not None:
            return listed
        if self._visible.hides:
            raise errors.models_unreadable("has an unknown format")
        return body
