"""The code blocks of the documentation."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.processes.processes import ROOT

PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
PROMPTS = ("$ ", ">>> ")


@dataclass(frozen=True)
class Block:
    """One block. `language` is empty for the output of the block right before."""

    page: str
    language: str
    text: str
    is_output: bool

    @property
    def first(self) -> str:
        return self.text.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page}: {self.language} {self.first[:60]!r}"


def blocks() -> Iterator[Block]:
    """All blocks of all pages."""
    for page in PAGES:
        yield from blocks_of(page)


def blocks_of(page: str) -> Iterator[Block]:
    text, end = (ROOT / page).read_text(), -1
    for found in _BLOCK.finditer(text):
        follows = end >= 0 and not text[end : found.start()].strip()
        is_output = follows and not found[2]
        yield Block(page, found[2], textwrap.dedent(found[3]), is_output)
        end = found.end()


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a block with prompts, each with its documented output."""
    command, output = "", ""
    for line in block.text.splitlines():
        if line.startswith(PROMPTS):
            if command:
                yield command, output
            command, output = line.partition(" ")[2], ""
        elif not output and _is_open(command):
            command += f"\n{line}"
        else:
            output += f"{line}\n"
    yield command, output


def _is_open(command: str) -> bool:
    """Does the command go on in the next line?"""
    if command.endswith("\\"):
        return True
    try:
        shlex.split(command, comments=True)
    except ValueError:  # a quotation is open
        return True
    return False
