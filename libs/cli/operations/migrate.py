"""`responses-proxy migrate`: brings the schema up to date and says what it did. Ingest
does the same when it starts; here it can be done before, with rights that ingest need
not have. Several at once are safe: the database lets one at a time."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping

from libs.cli.plan import without_password
from libs.common.errors import SettingError, StoreAway
from libs.common.settings.base import DatabaseSettings
from libs.common.store.factory import SQLITE, open_store
from libs.common.store.interface import SchemaTooNew
from libs.common.store.migrate import known_migrations

UNUSABLE = 2


def main(environ: Mapping[str, str]) -> int:
    """0 when the schema is the newest, 1 when the database is away, 2 when it
    cannot be: a newer schema, or a setting that makes no sense."""
    # The pool tells each failed try; what is raised in the end says it once.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    try:
        url = DatabaseSettings.read(environ).url
        said = asyncio.run(migrated(url))
    except (SettingError, SchemaTooNew) as error:
        return _complain(error, UNUSABLE)
    except StoreAway as error:
        return _complain(error, 1)
    print("\n".join(said))
    return 0


async def migrated(url: str) -> list[str]:
    """What was done, a line each."""
    store = open_store(url)
    try:
        before = await store.schema_version()
        after = await store.migrate()
    finally:
        await store.close()
    database = "sqlite" if url.startswith(SQLITE) else "postgres"
    applied = [
        m.name for m in known_migrations(database) if before < m.version <= after
    ]
    place = without_password(url)
    if not applied:
        return [f"{place}: schema {after}, nothing to do"]
    return [
        f"{place}: schema {before} -> {after}",
        *(f"applied {name}" for name in applied),
    ]


def _complain(error: Exception, code: int) -> int:
    print(f"responses-proxy: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(os.environ))
