"""Which form of the hot path runs: compiled by `make compile`, or interpreted
(docs/adr/0011-mypyc.md). Reads what setup.py recorded beside the shared object."""

import hashlib
import json
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

LIBS = Path(__file__).parents[2]
# The shared object of all compiled modules. It is in a package because `python -P`
# finds nothing beside the packages of a checkout. This interpreter loads no other's.
LIBRARY = f"compiled__mypyc{EXTENSION_SUFFIXES[0]}"
# Each Python's has its own name, so a checkout can be compiled for several.
RECORD = f"compiled{EXTENSION_SUFFIXES[0].removesuffix('.so')}.json"


def form(libs: Path = LIBS) -> str:
    """What doctor, `/readyz` and the banner of `up` say."""
    return "compiled" if (libs / LIBRARY).exists() else "interpreted"


def refuse_stale(libs: Path = LIBS) -> None:
    """Exits if a source is not the one that was compiled: what runs would not be what
    the file says. Called when `libs` is imported, so before any compiled module."""
    if form(libs) == "interpreted":
        return
    recorded: dict[str, str] = {f"libs/{RECORD}": "there"}  # if it is not
    with suppress(FileNotFoundError):
        recorded = json.loads((libs / RECORD).read_text())
    changed = [
        path for path, known in recorded.items() if digest(libs.parent / path) != known
    ]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise SystemExit(
            f"responses-proxy: {changed[0]}{more} changed after `make compile`. "
            "Run `make compile` again, or `make uncompile`"
        )


def digest(source: Path) -> str:
    """Of a source, as setup.py records it; empty if there is none."""
    try:
        return hashlib.sha256(source.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
