"""Sends an alert to the webhook, with a few tries."""

import time
from collections.abc import Callable

import httpx
import stamina

from services.ingest.alerts.signature import signed_headers

TRIES = 3
TIMEOUT_S = 10.0  # of one try


class NotAccepted(Exception):
    """The webhook did not accept an alert. The message is the reason; it names neither
    the address nor a secret."""


class Sender:
    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        key: bytes,
        wait_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`wait_s`: before the second try; each further one waits twice as long."""
        self._client = client
        self._url = url
        self._key = key
        self._wait_s = wait_s
        self._clock = clock

    async def send(self, id_: str, body: bytes) -> None:
        """Return when it was accepted (2xx). Raises `NotAccepted`."""
        async for attempt in stamina.retry_context(
            on=NotAccepted,
            attempts=TRIES,
            timeout=None,
            wait_initial=self._wait_s,
            wait_jitter=self._wait_s,
        ):
            with attempt:
                await self._try(id_, body)

    async def close(self) -> None:
        await self._client.aclose()

    async def _try(self, id_: str, body: bytes) -> None:
        headers = signed_headers(self._key, id_, int(self._clock()), body)
        try:
            # Only the status matters: the body of the answer is not read.
            async with self._client.stream(
                "POST", self._url, content=body, headers=headers, timeout=TIMEOUT_S
            ) as answer:
                status = answer.status_code
        except httpx.HTTPError as error:
            raise NotAccepted(f"no answer ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise NotAccepted(f"status {status}")
