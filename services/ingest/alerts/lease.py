"""The lease of who sends alerts: in SQL, where they are, because processes of several
shards share them, but no Redis."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from libs.common.store.interface import Fetch
from libs.common.store.rows import iso

ROLE = "alerts"
LASTS = timedelta(minutes=1)  # longer than one alert takes


def _now() -> datetime:
    return datetime.now(UTC)


class DeliveryLease:
    """Methods raise `StoreAway`."""

    def __init__(
        self, fetch: Fetch, holder: str, now: Callable[[], datetime] = _now
    ) -> None:
        self._fetch = fetch
        self._holder = holder
        self._now = now

    async def hold(self) -> bool:
        """Take or renew the lease; returns whether we have it."""
        now = self._now()
        times = {"now": iso(now), "expires_at": iso(now + LASTS)}
        who = {"role": ROLE, "holder": self._holder}
        return bool(await self._fetch("hold_lease", {**who, **times}))

    async def release(self) -> None:
        await self._fetch("release_lease", {"role": ROLE, "holder": self._holder})
