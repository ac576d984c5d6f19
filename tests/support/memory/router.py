"""A router as the gateway's HTTP client sees it."""

from collections.abc import AsyncIterator

import httpx


class _Body(httpx.AsyncByteStream):
    """A body, as the network gives it."""

    def __init__(self, router: "Router") -> None:
        self._router = router

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._router.body

    async def aclose(self) -> None:
        self._router.closed += 1


class Router:
    """Answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.status = 200
        self.headers = {"content-type": "application/json"}
        self.body = b'{"it":"is"}'
        self.away = False
        self.closed = 0  # answers
        self.client = httpx.AsyncClient(
            transport=httpx.MockTransport(self._serve), base_url="http://router"
        )

    def _serve(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused")
        self.asked.append(request)
        return httpx.Response(self.status, headers=self.headers, stream=_Body(self))
