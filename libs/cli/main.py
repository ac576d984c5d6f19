"""The commands that the package installs."""

from libs.common.runtime.program import load


def run() -> None:
    load("libs.cli.command_line").run()


def run_worker() -> None:
    load("libs.cli.command_line").run_worker()
