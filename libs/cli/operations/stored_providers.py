"""Finds registered providers that violate the current rules: rows written by an older
version or by hand. They get no requests."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from libs.common.providers.rules import ProviderRules
from libs.common.settings.base import DatabaseSettings

_ROWS = "SELECT id, base_url, credential_ref FROM providers WHERE enabled ORDER BY id"


def broken_providers(
    environ: Mapping[str, str], timeout_s: float
) -> Iterator[tuple[str, str]]:
    """Yields each provider's id and the violation. Yields nothing if the database is
    unreachable, which is another check's finding."""
    rules = ProviderRules.read(environ)
    for id_, base_url, reference in _rows(environ, timeout_s):
        refusal = rules.destinations.refusal(base_url)
        if refusal is not None:
            yield id_, f"its base_url {refusal}"
        elif reference is not None:
            refusal = rules.references.refusal(reference, base_url)
            if refusal is not None:
                yield id_, f"its credential_ref must not be sent there: {refusal}"


def _rows(environ: Mapping[str, str], timeout_s: float) -> Sequence[tuple[Any, ...]]:
    url = DatabaseSettings.read(environ).url
    try:
        if not url.startswith("sqlite:"):
            with psycopg.connect(url, connect_timeout=int(timeout_s)) as postgres:
                return postgres.execute(_ROWS).fetchall()
        path = Path(url.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as lite:
            return lite.execute(_ROWS).fetchall()
    except (sqlite3.Error, psycopg.Error, OSError):
        return ()
