"""Runs an ASGI application (Falcon) on a client's connection, for everything but
/v1."""

import asyncio
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog

from libs.common.headers import Header
from services.gateway import errors
from services.gateway.auth.client_address import Trusted, client_address
from services.gateway.content.headers import JSON_TYPE
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request

log = structlog.get_logger()

STALL_S = 60.0  # how long a client may take to read a part of the answer


class ControlPlane:
    """Serves requests with the ASGI application `app`."""

    def __init__(self, app: Any, balancers: Trusted = ()) -> None:
        """`balancers`: those whose X-Forwarded-For counts."""
        self._app = app
        self._balancers = balancers

    async def serve(self, request: Request, connection: Connection) -> None:
        talk = _Talk(request, connection)
        try:
            await self._app(self._scope(request, connection), talk.receive, talk.send)
        except asyncio.CancelledError:
            if not connection.gone:
                raise
        except Exception:
            log.exception("admin request failed", action="request_failed")
            if not connection.began:
                talk.refuse(errors.internal())
        finally:
            connection.over()

    def _scope(self, request: Request, connection: Connection) -> dict[str, Any]:
        path = unquote_to_bytes(request.path).decode("utf-8", "replace")
        address = client_address(connection.peer, request.headers, self._balancers)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": path,
            "raw_path": request.path,
            "query_string": request.query[1:],
            "root_path": "",
            "headers": request.headers,
            "client": (address, 0) if address else None,
            "server": None,
        }


class _Talk:
    """The ASGI `receive` and `send` of one request."""

    def __init__(self, request: Request, connection: Connection) -> None:
        self._request = request
        self._connection = connection
        self._read = False
        self._status = 500
        self._headers: list[Header] = []
        self._head: bytes | None = None

    async def receive(self) -> dict[str, Any]:
        if self._read:
            # Waits until the client disconnects, which cancels the task.
            await asyncio.get_running_loop().create_future()
        self._read = True
        return {"type": "http.request", "body": self._request.body, "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(bytes(n), bytes(v)) for n, v in message["headers"]]
            return
        if message["type"] != "http.response.body":
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        # To HEAD, the length in the headers is that of the body for GET.
        if self._head is None and not more and self._request.method != "HEAD":
            self._connection.writer.send_whole(self._status, self._headers, body)
            return
        if self._head is None:
            self._head = self._connection.writer.begin(self._status, self._headers, b"")
        head, self._head = self._head, b""
        self._connection.writer.send(head, body, last=not more)
        try:
            async with asyncio.timeout(STALL_S):
                await self._connection.drained()
        except TimeoutError:
            self._connection.abort()

    def refuse(self, problem: errors.Problem) -> None:
        headers = [JSON_TYPE, *problem.headers]
        self._connection.writer.send_whole(problem.status, headers, problem.body())
