"""A router as the gateway's HTTP client sees it."""

import httpx


class Router:
    """Answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answer = httpx.Response(200, json={"it": "is"})
        self.away = False
        self.client = httpx.AsyncClient(
            transport=httpx.MockTransport(self._serve), base_url="http://router"
        )

    def _serve(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused")
        self.asked.append(request)
        return self.answer
