"""`responses-proxy migrate`: upgrades the database schema and prints what it did.

Ingest does the same when it starts. Run this command first when ingest's database user
may not change the schema. Concurrent runs are safe: each holds the migration lock in
turn."""

import asyncio
import logging
import os
from collections.abc import Mapping

from libs.cli.plan import without_password
from libs.cli.run import run_quietly
from libs.common.settings.base import DatabaseSettings
from libs.common.store.factory import SQLITE, open_store
from libs.common.store.migrate import known_migrations


def main(environ: Mapping[str, str]) -> int:
    """Returns the exit code, 0. Raises `StoreAway` if the database is unreachable,
    `SchemaTooNew`, or `SettingError`."""
    # The pool logs every failed try; the exception raised at the end is enough.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    print("\n".join(asyncio.run(migrated(DatabaseSettings.read(environ).url))))
    return 0


async def migrated(url: str) -> list[str]:
    """Upgrade the schema; returns the lines to print."""
    async with open_store(url) as store:
        before = await store.schema_version()
        after = await store.migrate()
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


if __name__ == "__main__":
    run_quietly(lambda: main(os.environ))
