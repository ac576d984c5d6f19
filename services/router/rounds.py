"""Runs the rounds of a background loop, which go on after every failure."""

from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from libs.common.errors import ProxyError


class Rounds:
    """Counts failures, and logs each cause once."""

    def __init__(
        self,
        failures: Counter,
        message: str,
        action: str,
        log: Callable[..., object],
    ) -> None:
        self._failures = failures
        self._message = message
        self._action = action
        self._log = log
        self._said = ""

    async def attempt(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Run `work`. Return whether it succeeded. Any error may pass: Redis refuses
        writes while it is full or a replica, SQL has no tables before the first
        migration, and until then the router must be able to show the cause."""
        try:
            await work()
        except ProxyError as error:
            cause = str(error)
        except Exception as error:  # noqa: BLE001 - the outermost loop
            cause = f"{type(error).__name__}: {str(error)[:80]}"
        else:
            self._said = ""
            return True
        self._failures.inc()
        if cause != self._said:
            self._log(self._message, action=self._action, cause=cause)
        self._said = cause
        return False
