"""The source of the Redis function library: the files of `functions/`, concatenated
in an order in which each uses only what precedes it."""

from pathlib import Path

SHEBANG = "#!lua name=rpx\n"
FILES = (
    "catalogue",
    "ranking",
    "telemetry",
    "health",
    "leases",
    "affinity",
    "limits",
    "choice",
    "acquire",
    "release",
    "publish",
    "registration",
)


def library_source(folder: Path) -> str:
    """The library in `folder`. Each file is in a comment of its own name, so that the
    line numbers of Lua's errors can be traced."""
    parts = [f"-- {name}.lua\n{(folder / f'{name}.lua').read_text()}" for name in FILES]
    return SHEBANG + "\n".join(parts)


LIBRARY = library_source(Path(__file__).with_name("functions"))
