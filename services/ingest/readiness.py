"""Readiness of ingest, which needs Redis, the database and its schema."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from libs.common.errors import RedisAway, StoreAway
from libs.common.runtime.probes import Readiness

TIMEOUT_S = 2.0

Check = Callable[[], Awaitable[object]]


async def readiness(checks: Mapping[str, Check]) -> Readiness:
    """Run all checks concurrently. A check that times out has failed."""
    results = await asyncio.gather(*(_result(check) for check in checks.values()))
    details = dict(zip(checks, results, strict=True))
    failed = tuple(name for name, result in details.items() if result != "ok")
    return Readiness(ok=not failed, degraded=failed, details=details)


async def _result(check: Check) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await check()
    except (RedisAway, StoreAway) as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    return "ok"
