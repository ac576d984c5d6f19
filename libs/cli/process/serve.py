"""Runs Granian with three changes:
`python -P -m libs.cli.process.serve APP GRANIAN-ARGUMENTS...`.

Workers exit when their main process is killed; otherwise an orphaned worker serves the
port forever, beside its successor. The application is imported from our package:
Granian puts the working directory first on the path, where another package named
`services` may be. Its log lines are JSON."""

import importlib
import os
import sys
from typing import Any, cast

from granian import log
from granian.cli import entrypoint

from libs.cli.process.lifeline import die_with_parent
from libs.common.runtime.json_lines import Formatter


def main() -> None:
    package = sys.argv[1].partition(".")[0]
    importlib.import_module(package)  # later imports of its modules use this package
    service = sys.argv[1].split(".")[1]
    formatters = cast(dict[str, Any], log.LOGGING_CONFIG["formatters"])
    formatters["generic"] = {"()": Formatter, "service": service}
    os.register_at_fork(after_in_child=die_with_parent)
    entrypoint()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
