"""`responses-proxy migrate`: upgrades the database schema and prints what it did.

Ingest does the same when it starts. Run this command first when ingest's database user
may not change the schema. Concurrent runs are safe: each holds the migration lock in
turn."""

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
    """Exit code: 0 if the schema is up to date, 1 if the database is unreachable, 2 if
    the schema is newer than this version or a setting is invalid."""
    # The pool logs every failed try; the exception raised at the end is enough.
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
    """Upgrade the schema; returns the lines to print."""
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
        return [f"{place}: schema version {after} is up to date"]
    return [
        f"{place}: upgraded the schema from version {before} to {after}",
        *(f"applied {name}" for name in applied),
    ]


def _complain(error: Exception, code: int) -> int:
    print(f"responses-proxy: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(os.environ))
