"""Can ingest do its job now? It needs both ends: the stream and the database."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from libs.common.errors import RedisAway, StoreAway
from libs.common.runtime.probes import Readiness

PATIENCE_S = 2.0

Check = Callable[[], Awaitable[object]]


async def readiness(checks: Mapping[str, Check]) -> Readiness:
    """Ask every end at once; one that is silent for too long is away."""
    said = await asyncio.gather(*(_say(check) for check in checks.values()))
    details = dict(zip(checks, said, strict=True))
    away = tuple(name for name, word in details.items() if word != "ok")
    return Readiness(ok=not away, degraded=away, details=details)


async def _say(check: Check) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await check()
    except (RedisAway, StoreAway) as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    return "ok"
