"""Lets gateways of the same machine run first. What ingest stores a moment later, no
client waits for."""

import os
from contextlib import suppress

# A third of the share of a gateway that competes for the same core. That is still far
# more than ingest needs for what the gateway can serve with the rest.
NICENESS = 5


def give_way() -> None:
    """Lower the priority of this thread and of those that it starts. Call once at
    start."""
    with suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, _niceness()))


def _niceness() -> int:
    """What the supervisor chose."""
    return os.getpriority(os.PRIO_PROCESS, 0)
