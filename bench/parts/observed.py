"""A gateway that counts and logs requests, or does not after a signal, to measure what
that costs: `python -m bench.parts.observed`."""

import asyncio
import signal

from services.gateway import event_log
from services.gateway.admin.conditions import GatewayConditions
from services.gateway.process import run
from services.gateway.proxy import in_flight

ON, OFF = signal.SIGUSR1, signal.SIGUSR2


def _nothing(*_: object) -> None:
    pass


async def _idle(*_: object) -> None:
    await asyncio.Event().wait()


_WHAT = (
    *((in_flight, name) for name in ("request_ended", "attempt_ended")),
    *(
        (event_log, name)
        for name in ("refused", "failed_over", "ended", "write_access")
    ),
)
_ITSELF = [(module, name, getattr(module, name)) for module, name in _WHAT]


def observe(*_: object) -> None:
    for module, name, itself in _ITSELF:
        setattr(module, name, itself)


def forget(*_: object) -> None:
    """Replace the functions that count and log."""
    for module, name in _WHAT:
        setattr(module, name, _nothing)


if __name__ == "__main__":
    # What runs by the clock would count as work of requests, which take long here.
    setattr(GatewayConditions, "run", _idle)  # noqa: B010
    # In one process, because two differ by more than what is measured.
    signal.signal(ON, observe)
    signal.signal(OFF, forget)
    run()
