"""Ties a process to its parent's life. Imports next to nothing."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Get SIGTERM when the parent dies, so that one killed outright leaves nobody
    behind. Linux only. Survives an exec, not a fork."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
