"""Loads the code of a program when it starts."""

import gc
import importlib
import os
import sys
from typing import Any

# Libraries import these if they are installed, for features that nothing here uses:
# structlog and httpx a terminal's colors and a command line, redis-py its metrics. No
# setting of theirs prevents it, and it takes a quarter of a start. The image has
# neither the first nor, without traces, the last.
UNUSED = ("rich", "click", "opentelemetry")


def load(module: str) -> Any:
    """Import `module`, the code of a program, and return it. Only for `__main__`.

    Without garbage collection, which takes another quarter: what is imported lives as
    long as the process, so it is not looked through later either."""
    # Otherwise pydantic looks for plugins among all installed packages.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # absent
    try:
        return importlib.import_module(module)
    finally:
        for name in hidden:  # traces import the last one when they are on
            del sys.modules[name]
        collect_seldom(*gc.get_threshold())
        gc.enable()


def collect_seldom(*thresholds: int) -> None:
    """Exclude all objects of now from garbage collection, and set its thresholds."""
    gc.freeze()
    gc.set_threshold(*thresholds)
