"""`POST /admin/health/check`, and the calls to the health service behind it."""

import asyncio
import json
from typing import Any, Protocol

import uuid_utils

from services.router.admin.schemas.state import Findings, Nothing
from services.router.api.operation import Operation
from services.router.errors import Problem

# How long an order may wait to be taken. A health service takes one within
# milliseconds, unless it is busy with another.
UNTAKEN_S = 3.0


class Orders(Protocol):
    async def place(self, order: str) -> None: ...

    async def fetch(self, order: str) -> bytes | None: ...

    async def withdraw(self, order: str) -> bool: ...


class Examiner:
    """Sends orders to the health service, the only service that calls upstreams for
    checks."""

    def __init__(self, orders: Orders, patience_s: float) -> None:
        """`patience_s`: the timeout of a check plus a margin."""
        self._orders = orders
        self._patience_s = patience_s

    async def examine(self, wanted: str = "") -> Any:
        """The result for `wanted`, or of a round over all resources. Raises a
        `Problem` if no health service responds."""
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
            "The health service did not respond. Check that it is running, and its "
            "log.",
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
    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner

    @Operation(returns=Findings, problems=(503,), empty_body=b"{}")
    async def on_post(self, body: Nothing) -> dict[str, Any]:
        """Check every resource now."""
        return {"data": await self._examiner.examine()}
