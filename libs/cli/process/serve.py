"""Runs Granian with two changes:
`python -P -m libs.cli.process.serve APP GRANIAN-ARGUMENTS...`.

Its workers end when their main process is killed outright; by itself an orphaned
worker goes on serving the port beside its successor, for ever. And it takes the
application from our package, whatever folder it is run in: Granian puts the current
one first on the path, where a package `services` of somebody else may lie.
"""

import importlib
import os
import sys

from granian.cli import entrypoint

from libs.cli.process.lifeline import die_with_parent


def main() -> None:
    package = sys.argv[1].partition(".")[0]
    importlib.import_module(package)  # found once, its modules come from there
    os.register_at_fork(after_in_child=die_with_parent)
    entrypoint()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
