"""The source of the Redis function library: the files of `functions/`, concatenated
in an order in which each uses only what precedes it."""

from importlib.metadata import version
from pathlib import Path

from libs.common.routing.replies import LIBRARY_VERSION

SHEBANG = "#!lua name=rpx\n"
FILES = (
    "catalogue",
    "account_limits",
    "ranking",
    "telemetry",
    "health",
    "leases",
    "affinity",
    "limits",
    "budgets",
    "choice",
    "queue",
    "acquire",
    "release",
    "publish",
    "registration",
)


def library_source(folder: Path) -> str:
    """The library in `folder`. Each file is in a comment of its own name, so that the
    line numbers of Lua's errors can be traced. The head names the version: routers of
    an older one leave a newer library in place (libs/common/routing/control.py)."""
    parts = [f"-- {name}.lua\n{(folder / f'{name}.lua').read_text()}" for name in FILES]
    head = f"{SHEBANG}{LIBRARY_VERSION}{version('responses-proxy')}\n"
    return head + "\n".join(parts)


LIBRARY = library_source(Path(__file__).with_name("functions"))
