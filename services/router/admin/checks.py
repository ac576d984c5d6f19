"""`POST /admin/health/check`: have every resource checked now."""

import asyncio
import json

import uuid_utils
from falcon.asgi import Request, Response

from libs.common.orders import Orders
from services.router.problems import Problem

PATIENCE_S = 20.0  # a check's own time-out and some


class HealthCheck:
    """Orders a round from the health service and waits for its verdicts."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def on_post(self, _: Request, resp: Response) -> None:
        order = str(uuid_utils.uuid7())
        await self._orders.place(order)
        loop = asyncio.get_running_loop()
        ends = loop.time() + PATIENCE_S
        while loop.time() < ends:
            answer = await self._orders.fetch(order)
            if answer is not None:
                resp.media = {"data": json.loads(answer)}
                return
        raise Problem(
            503,
            "health_unreachable",
            "No health service answered. Look whether it runs, and at its log.",
        )
