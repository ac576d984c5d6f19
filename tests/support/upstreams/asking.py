"""Asks an upstream by the gateway's client, as `HttpExchange` does."""

from services.gateway.upstream.client import UpstreamClient
from services.gateway.upstream.origin import Origin
from services.gateway.upstream.response import Answer


async def answer_of(
    client: UpstreamClient,
    origin: Origin,
    head: bytes,
    body: bytes,
    deadline: float,
    *,
    bodiless: bool = False,
) -> Answer:
    """Sends a request, and returns when the head of its response arrived."""
    route = client.route(origin)
    connection = route.idle() or await route.free(deadline)
    asked = route.send(connection, head, body, deadline, bodiless=bodiless)
    try:
        return await asked
    except BaseException as error:
        route.unanswered(connection, asked, error)
        raise
