"""Runs a command that gets SIGTERM when its parent dies:
`python -m libs.cli.process.launch [--keep-output] COMMAND...`.

Imports very little: every program under supervisord starts through this module."""

import contextlib
import os
import sys

from libs.cli.process import descriptors
from libs.cli.process.lifeline import die_with_parent


def main() -> None:
    command = sys.argv[1:]
    surplus = [descriptors.LOCK, descriptors.OUTPUT]
    if command[0] == "--keep-output":
        command.pop(0)
        surplus.remove(descriptors.OUTPUT)
    for descriptor in surplus:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    die_with_parent()
    os.execvp(command[0], command)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
