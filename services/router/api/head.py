"""HEAD wherever GET is."""

from collections.abc import AsyncIterator
from typing import Any

from falcon.asgi import Request, Response


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def answer_head(resource: Any) -> None:
    """Make a resource that answers GET answer HEAD too. Falcon sends no body, and the
    length of the one that GET would send."""
    get = getattr(resource, "on_get", None)
    if get is None or hasattr(resource, "on_head"):
        return

    async def on_head(req: Request, resp: Response, **params: Any) -> None:
        await get(req, resp, **params)
        if resp.sse is not None:
            # Not sent either, but Falcon then names no length.
            resp.sse, resp.stream = None, _nothing()

    resource.on_head = on_head
