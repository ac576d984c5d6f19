"""Opens WebSockets to upstreams."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.protocol import State
from websockets.uri import parse_uri

from libs.common.headers import Header
from libs.common.providers.key_echoes import SentKey
from services.gateway.content.headers import upgrade_head
from services.gateway.content.key_masking import without_key
from services.gateway.routing.target import Target
from services.gateway.upstream.client import Broken, NoKey, Slow
from services.gateway.upstream.connector import Dialer, Factory
from services.gateway.upstream.errors import NotSent, UpstreamError

OPEN_TIMEOUT_S = 10.0  # below the 15 s after which Codex gives up on an upgrade
MAX_EVENT_BYTES = 67_108_864  # an image is one event
MAX_QUEUED_EVENTS = 4  # read ahead of a slow client
# Pings keep idle connections open. A missing pong is no failure: it queues behind
# the events that a slow client has not read yet.
PING_INTERVAL_S = 30.0
CLOSE_TIMEOUT_S = 0.5  # for the upstream to answer a close frame


class UpgradeRefused(UpstreamError):
    """The upstream answered the upgrade request with a status other than 101."""

    def __init__(
        self, status: int, headers: list[Header], body: bytes, plain: bytes
    ) -> None:
        """`plain` is the body without its content coding."""
        super().__init__(f"{status}")
        self.status = status
        self.headers = headers
        self.body = body
        self.plain = plain


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A socket and where it leads."""

    connection: ClientConnection
    target: Target

    @property
    def usable(self) -> bool:
        """Can frames be sent on it?"""
        return self.connection.state is State.OPEN

    @property
    def headers(self) -> list[Header]:
        """Those of the upstream's 101 response."""
        answer = self.connection.response
        return header_list(answer.headers) if answer else []


class Opener:
    """Sends upgrade requests."""

    def __init__(self, dialer: Dialer, connect_timeout_s: float) -> None:
        self._dialer = dialer
        self._connect_timeout_s = connect_timeout_s

    async def open(
        self, target: Target, path: bytes, headers: Sequence[Header]
    ) -> ClientConnection:
        """Open a socket. `path` follows the base URL and includes the query. Raises
        `UpgradeRefused` or another `UpstreamError`."""
        if not target.authorization:
            raise NoKey
        secure = target.origin.scheme == "https"
        address = b"%b://%b%b%b" % (
            b"wss" if secure else b"ws",
            target.host,
            target.path,
            path,
        )
        head = upgrade_head(headers, target.upgrade_keys)

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
                user_agent_header=None,  # `head` has the client's
                compression=None,  # the client's side has none
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=None,
                max_size=MAX_EVENT_BYTES,
                max_queue=MAX_QUEUED_EVENTS,
            )
        except InvalidStatus as error:
            raise _refused(error, target.sent) from None
        except InvalidHandshake as error:
            cause = target.sent.hidden(f"the upgrade failed: {error}")
            raise Broken(cause[:200]) from None
        except TimeoutError as error:
            raise Slow(str(error) or "the upgrade was not answered") from error
        except OSError as error:
            raise NotSent(str(error) or "no connection") from error


class _Connect(connect):
    """Connects through the gateway's `Dialer`. Follows no redirects, which would
    send the key to wherever they lead."""

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


def _refused(error: InvalidStatus, sent: SentKey) -> UpgradeRefused:
    answer = error.response
    status, body = answer.status_code, bytes(answer.body or b"")
    shown = without_key(status, header_list(answer.headers), body, sent)
    return UpgradeRefused(status, shown.headers, shown.body, shown.plain)


def header_list(headers: Headers) -> list[Header]:
    """Convert headers of the `websockets` library to the gateway's."""
    return [
        (name.lower().encode("utf-8", "replace"), value.encode("utf-8", "replace"))
        for name, value in headers.raw_items()
    ]


def _text(value: bytes) -> str:
    """Convert for the library, which encodes as UTF-8."""
    return value.decode("utf-8", "replace")
