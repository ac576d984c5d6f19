"""SQL statements of a database, read from its files at import."""

from pathlib import Path

HERE = Path(__file__).parent


class Statements:
    """The files of `queries/<database>`, by name without `.sql`."""

    def __init__(self, database: str) -> None:
        files = sorted((HERE / "queries" / database).glob("*.sql"))
        self._texts = {file.stem: file.read_text() for file in files}

    def __getitem__(self, name: str) -> str:
        return self._texts[name]
