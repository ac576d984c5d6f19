"""Helpers for tests that talk to the simulated upstream."""

import json
from typing import Any

import httpx

MODEL = "gpt-5.5"
RESPONSES = "/v1/responses"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def create(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "hello", **fields}


def events_in(text: str) -> list[dict[str, Any]]:
    """The events of an SSE body, whose framing is checked."""
    *frames, rest = text.split("\n\n")
    assert rest == ""
    events = []
    for frame in frames:
        head, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        events.append(event)
    return events


async def script(http: httpx.AsyncClient, fault: Any, **more: Any) -> None:
    answer = await http.post("/__sim/faults", json={"fault": fault, **more})
    assert answer.status_code == 200, answer.text


async def journal(http: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get("/__sim/journal", params=query)
    return list(answer.json()["entries"])


async def held(http: httpx.AsyncClient, count: int) -> bool:
    """Wait until this many answers are held."""
    shown = await http.get("/__sim/held")
    return bool(shown.json()["total"] == count)


async def streamed(
    http: httpx.AsyncClient, silence_s: float = 60
) -> tuple[list[str], Exception | None]:
    """The event types that arrived, and the error that broke the stream, if any. It is
    given up after this silence."""
    text, timeout = "", httpx.Timeout(60, read=silence_s)
    try:
        async with http.stream(
            "POST", RESPONSES, json=create(stream=True), timeout=timeout
        ) as answer:
            async for piece in answer.aiter_text():
                text += piece
    except httpx.HTTPError as error:
        return [event["type"] for event in events_in(text)], error
    return [event["type"] for event in events_in(text)], None
