"""Migrations, and which of them a database still needs. They only go forward. Each
store applies them in one transaction, under a lock."""

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.store.interface import SchemaTooNew
from libs.common.store.sql import HERE


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    script: str


def known_migrations(database: str) -> tuple[Migration, ...]:
    """Read the files of `migrations/<database>`, numbered without gaps."""
    files = sorted((HERE / "migrations" / database).glob("*.sql"))
    found = tuple(
        Migration(int(f.stem.partition("_")[0]), f.stem, f.read_text()) for f in files
    )
    assert [m.version for m in found] == list(range(1, len(found) + 1)), files
    return found


def pending(known: Sequence[Migration], version: int) -> Sequence[Migration]:
    """Return the migrations after `version`. Raises `SchemaTooNew`."""
    newest = known[-1].version
    if version > newest:
        raise SchemaTooNew(
            f"The database has schema version {version}, but this version of the proxy "
            f"supports {newest}. Run the version that migrated it, or a newer one."
        )
    return [m for m in known if m.version > version]
