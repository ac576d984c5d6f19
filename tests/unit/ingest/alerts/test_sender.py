"""One alert and its tries."""

from collections.abc import Callable

import httpx
import pytest

from services.ingest.alerts.sender import TRIES, NotAccepted, Sender
from services.ingest.alerts.signature import signed_headers

URL = "https://hooks.example/T0/hush"
KEY = b"k" * 32
Answers = Callable[[httpx.Request], httpx.Response]


def sender(answer: Answers) -> Sender:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Sender(client, URL, KEY, wait_s=0.0, clock=lambda: 7.9)


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.asyncio
async def test_it_is_sent_once_if_it_is_accepted(status: int) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status)

    webhook = sender(answer)
    await webhook.send("e1", b"{}")
    await webhook.close()
    (request,) = seen
    assert (str(request.url), request.content) == (URL, b"{}")
    expected = signed_headers(KEY, "e1", 7, b"{}")
    assert expected.items() <= dict(request.headers).items()


def no_answer(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError(f"cannot reach {URL}")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: httpx.Response(500, text="hush"), "status 500"),
        (lambda _: httpx.Response(302, headers={"location": URL}), "status 302"),
        (lambda _: httpx.Response(404), "status 404"),
        (no_answer, "no answer (ConnectError)"),
    ],
)
@pytest.mark.asyncio
async def test_it_is_tried_a_few_times(answer: Answers, reason: str) -> None:
    tries = 0

    def counting(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        return answer(request)

    with pytest.raises(NotAccepted) as refused:
        await sender(counting).send("e1", b"{}")
    assert (str(refused.value), tries) == (reason, TRIES)
    assert refused.value.__cause__ is None
