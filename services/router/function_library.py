"""The source of a stack's Redis function library: a head with its name, and the files
of `functions/`, concatenated in an order in which each uses only what precedes it."""

from importlib.metadata import version
from pathlib import Path

from libs.common.redis.keys import DEFAULT, Keys
from libs.common.routing.replies import LIBRARY_VERSION

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
    "reaping",
    "choice",
    "queue",
    "acquire",
    "release",
    "publish",
    "registration",
)


def source_of(folder: Path) -> str:
    """The files in `folder`, each behind a comment with its name, so that the line
    numbers of Lua's errors can be traced."""
    parts = [f"-- {name}.lua\n{(folder / f'{name}.lua').read_text()}" for name in FILES]
    return "\n".join(parts)


SOURCE = source_of(Path(__file__).with_name("functions"))


def library(keys: Keys) -> str:
    """The library of a stack: Redis runs it apart from those of other stacks, with a
    memory of its own. The head names the version: routers of an older one leave a newer
    library in place (libs/common/routing/control.py)."""
    head = (
        f"#!lua name={keys.namespace}\n"
        f"{LIBRARY_VERSION}{version('responses-proxy')}\n"
        f"local NAMESPACE = '{keys.namespace}'\n"
    )
    return head + SOURCE


LIBRARY = library(DEFAULT)
