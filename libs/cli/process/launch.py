"""Runs a command that gets SIGTERM when its parent dies:
`python -m libs.cli.process.launch COMMAND...`.

Imports very little, because the command waits for it."""

import os
import sys

from libs.cli.process.lifeline import die_with_parent


def main() -> None:
    command = sys.argv[1:]
    die_with_parent()
    os.execvp(command[0], command)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
