"""`POST /admin/health/check`: have every resource checked now."""

import asyncio
import json
from typing import Any, Protocol

import uuid_utils
from falcon.asgi import Request, Response

from services.router.errors import Problem

# So long an order may lie untaken: a health service takes it within milliseconds,
# unless it is at another one.
UNTAKEN_S = 3.0


class Orders(Protocol):
    async def place(self, order: str) -> None: ...

    async def fetch(self, order: str) -> bytes | None: ...

    async def withdraw(self, order: str) -> bool: ...


class Examiner:
    """Has the health service do what only it may: ask upstreams."""

    def __init__(self, orders: Orders, patience_s: float) -> None:
        """`patience_s`: a check's own time-out and some."""
        self._orders = orders
        self._patience_s = patience_s

    async def examine(self, wanted: str = "") -> Any:
        """Its answer: to `wanted`, else a round over all resources."""
        order = f"{uuid_utils.uuid7()} {wanted}".strip()
        await self._orders.place(order)
        for limit_s in (min(UNTAKEN_S, self._patience_s), self._patience_s):
            answer = await self._fetch(order, limit_s)
            if answer is not None:
                return json.loads(answer)
            if await self._orders.withdraw(order):
                break
        raise Problem(
            503,
            "health_unreachable",
            "No health service answered. See that it runs, and what its log says.",
        )

    async def _fetch(self, order: str, within_s: float) -> bytes | None:
        clock = asyncio.get_running_loop().time
        ends = clock() + within_s
        while clock() < ends:
            answer = await self._orders.fetch(order)
            if answer is not None:
                return answer
        return None


class HealthCheck:
    """Orders a round from the health service and waits for its verdicts."""

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner

    async def on_post(self, _: Request, resp: Response) -> None:
        resp.media = {"data": await self._examiner.examine()}
