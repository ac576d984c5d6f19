"""Ends a process when its parent dies. Imports very little."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Send SIGTERM to this process when its parent dies, even if the parent is killed.
    Linux only. Survives exec, but not fork."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
