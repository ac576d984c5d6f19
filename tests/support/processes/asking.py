"""Clients of gateways that are killed: one request, and what they received."""

from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.support.processes.fleet import Member

ASK = {"model": "gpt-5.5", "input": "Say hello"}


@dataclass
class Heard:
    """What the clients received."""

    answered: list[str] = field(default_factory=list)  # complete answers, by request id
    begun: set[str] = field(default_factory=set)  # the answer's head arrived
    failed: Counter[str] = field(default_factory=Counter)


async def ask(
    http: httpx.AsyncClient, gateway: Member, heard: Heard, *, stream: bool
) -> None:
    url, body = f"{gateway.url}/responses", {**ASK, "stream": stream}
    async with http.stream("POST", url, json=body) as answer:
        id_ = answer.headers.get("x-proxy-request-id")
        if id_:
            heard.begun.add(id_)
        whole = await answer.aread()
    if answer.status_code == 200 and (not stream or b"response.completed" in whole):
        heard.answered.append(id_)
    else:
        heard.failed[str(answer.status_code)] += 1
