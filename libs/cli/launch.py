"""Becomes the command it is given, after tying it to its parent's life:
`python -m libs.cli.launch [--keep-output] COMMAND...`. Imports next to nothing:
every program under supervisord starts through it."""

import contextlib
import ctypes
import os
import signal
import sys

from libs.cli import descriptors

PR_SET_PDEATHSIG = 1


def main() -> None:
    command = sys.argv[1:]
    surplus = [descriptors.LOCK, descriptors.OUTPUT]
    if command[0] == "--keep-output":
        command.pop(0)
        surplus.remove(descriptors.OUTPUT)
    for descriptor in surplus:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _die_with_parent()
    os.execvp(command[0], command)  # noqa: S606 - that is what it is for


def _die_with_parent() -> None:
    """Get SIGTERM when the parent dies: a supervisord that is killed outright
    leaves nobody behind. Linux only; survives the exec that follows."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
