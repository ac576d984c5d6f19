"""SQL statements of a database, read from its files at import."""

import re
from pathlib import Path

HERE = Path(__file__).parent
_VALUE = re.compile(r"(?<![:\w]):(\w+)")
_CAST = re.compile(r"::\w+")


class Statements:
    """The files of `queries/<database>` and `queries/both`, by name. In the
    latter, `:name` is a value, and `::type` a cast, which SQLite does not have."""

    def __init__(self, database: str) -> None:
        shared = _read("both")
        for name, text in shared.items():
            if database == "postgres":
                shared[name] = _VALUE.sub(r"%(\1)s", text)
            else:
                shared[name] = _CAST.sub("", text)
        self.texts = _read(database) | shared

    def __getitem__(self, name: str) -> str:
        return self.texts[name]


def _read(folder: str) -> dict[str, str]:
    files = (HERE / "queries" / folder).glob("*.sql")
    return {file.stem: file.read_text() for file in files}
