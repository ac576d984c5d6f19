"""Text for terminals. Pure."""

from collections.abc import Sequence


def plain(text: object) -> str:
    """Escapes control characters: anybody may have written them, and a terminal
    obeys."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the heads first."""
    cells = [[plain(cell).replace("\n", "\\n") for cell in row] for row in rows]
    everything = [list(heads), *cells]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in everything]
