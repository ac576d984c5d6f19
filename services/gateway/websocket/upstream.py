"""The upstream's end of a client's socket: how it is opened, or why not."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.uri import parse_uri

from libs.common.headers import Header
from libs.common.providers.key_echoes import SentKey
from services.gateway.content.headers import upgrade_head
from services.gateway.content.key_masking import without_key
from services.gateway.routing.catalogue import Target
from services.gateway.upstream.client import Broken, NoKey, Slow
from services.gateway.upstream.connector import Dialer, Factory
from services.gateway.upstream.errors import NotSent, UpstreamError

OPEN_S = 10.0  # Codex gives an upgrade 15 s
# Bytes of one event; images come in one piece.
LARGEST_FRAME = 67_108_864
MOST_FRAMES = 4  # read ahead of a slow client
# Pings keep the path open. That no pong comes says nothing: it waits behind what
# a slow client has not read yet.
PING_S = 30.0
CLOSE_S = 0.5


class Refused(UpstreamError):
    """The upstream answered the upgrade, with something else than a socket."""

    def __init__(
        self, status: int, headers: list[Header], body: bytes, plain: bytes
    ) -> None:
        """`plain` is the body opened."""
        super().__init__(f"{status}")
        self.status = status
        self.headers = headers
        self.body = body
        self.plain = plain


@dataclass(frozen=True, slots=True)
class Opened:
    """An upstream's open socket."""

    connection: ClientConnection
    target: Target

    @property
    def headers(self) -> list[Header]:
        """The upstream's, of its 101."""
        answer = self.connection.response
        return header_list(answer.headers) if answer else []


class Opener:
    """Opens sockets to upstreams."""

    def __init__(self, dialer: Dialer, connect_timeout_s: float) -> None:
        self._dialer = dialer
        self._connect_timeout_s = connect_timeout_s

    async def open(
        self, target: Target, path: bytes, headers: Sequence[Header]
    ) -> ClientConnection:
        """`path` is what follows the base URL, with its query. Raises `Refused` or
        another `UpstreamError`."""
        if not target.authorization:
            raise NoKey
        secure = target.origin.scheme == "https"
        address = b"%b://%b%b%b" % (
            b"wss" if secure else b"ws",
            target.host,
            target.path,
            path,
        )
        head = upgrade_head(headers, target.authorization)

        async def dial(factory: Factory) -> asyncio.Protocol:
            _, made = await self._dialer.dial(
                target.origin, factory, self._connect_timeout_s, tunnel=True
            )
            return made

        try:
            return await _Connect(
                dial,
                address.decode("latin-1"),
                additional_headers=[(_text(n), _text(v)) for n, v in head],
                user_agent_header=None,  # the client's own travels
                compression=None,  # frames pass as they are
                open_timeout=OPEN_S,
                close_timeout=CLOSE_S,
                ping_interval=PING_S,
                ping_timeout=None,
                max_size=LARGEST_FRAME,
                max_queue=MOST_FRAMES,
            )
        except InvalidStatus as refusal:
            raise _refused(refusal, target.sent) from None
        except InvalidHandshake as error:
            cause = target.sent.hidden(f"the upgrade failed: {error}")
            raise Broken(cause[:200]) from None
        except TimeoutError as error:  # dialling has one of its own
            raise Slow(str(error) or "the upgrade was not answered") from error
        except OSError as error:
            raise NotSent(str(error) or "no connection") from error


class _Connect(connect):
    """Dials as all the gateway does, and follows no redirects: the key would go
    wherever one leads."""

    def __init__(
        self,
        dial: Callable[[Factory], Awaitable[asyncio.Protocol]],
        uri: str,
        **options: Any,
    ) -> None:
        super().__init__(uri, **options)
        self._dial = dial

    async def create_connection(self) -> ClientConnection:
        uri = parse_uri(self.uri)
        return cast(
            ClientConnection, await self._dial(lambda: self.protocol_factory(uri))
        )

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _refused(refusal: InvalidStatus, sent: SentKey) -> Refused:
    answer = refusal.response
    status, body = answer.status_code, answer.body or b""
    shown = without_key(status, header_list(answer.headers), body, sent)
    return Refused(status, shown.headers, shown.body, shown.plain)


def header_list(headers: Headers) -> list[Header]:
    """Headers as the rest of the gateway has them."""
    return [
        (name.lower().encode("utf-8", "replace"), value.encode("utf-8", "replace"))
        for name, value in headers.raw_items()
    ]


def _text(value: bytes) -> str:
    """As the library wants it: it writes UTF-8."""
    return value.decode("utf-8", "replace")
