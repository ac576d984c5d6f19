"""Granian, whose workers end when their main process is killed outright:
`python -m libs.cli.serve GRANIAN-ARGUMENTS...`. By itself an orphaned worker goes on
serving the port beside its successor, for ever."""

import os

from granian.cli import entrypoint

from libs.cli.lifeline import die_with_parent

if __name__ == "__main__":
    os.register_at_fork(after_in_child=die_with_parent)
    entrypoint()  # type: ignore[no-untyped-call]
