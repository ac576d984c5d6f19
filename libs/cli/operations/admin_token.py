"""Print the link that logs in to the dashboard.

Run this with the environment of the router. `up` keeps the token in its data directory.
Other deployments keep only its hash, in SQL: that token can be replaced, but not
shown."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from libs.cli.operations.settings_check import address
from libs.common.admin_token import (
    FILE,
    login_link,
    new_token,
    read_file,
    replace_file,
    token_hash,
)
from libs.common.errors import ProxyError, SettingError
from libs.common.settings.base import CommonSettings, DatabaseSettings
from libs.common.store.admin_token import AdminTokenRow
from libs.common.store.factory import SQLITE, open_store

FAILED, UNUSABLE = 1, 2  # exit codes

app = typer.Typer(
    name="responses-proxy admin-token",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command(help=__doc__)
def admin_token(
    new: Annotated[
        bool,
        typer.Option("--new", help="Replace the token; the old one becomes invalid."),
    ] = False,
) -> None:
    try:
        settings = CommonSettings.read(os.environ)
        link = login_link(address(settings, "gateway"), _token(settings, new=new))
    except SettingError as error:
        _fail(str(error), UNUSABLE)
    except ProxyError as error:
        _fail(str(error), FAILED)
    except OSError as error:
        _fail(f"{FILE} cannot be written ({error.strerror})", FAILED)
    if settings.open_admin:
        print(
            "warning: PROXY_ALLOW_OPEN_ADMIN=true, so no token is required",
            file=sys.stderr,
        )
    print(link)


def _token(settings: CommonSettings, *, new: bool) -> str:
    if settings.admin_token is not None:
        raise SettingError(
            "PROXY_ADMIN_TOKEN",
            "is set and holds the token",
            "To replace the token, change the variable and restart the router",
        )
    kept = read_file(settings.data_dir)
    if kept is not None:
        return replace_file(settings.data_dir) if new else kept
    url = _database(settings)
    if not new:
        raise ProxyError(
            "the token cannot be shown, because only its hash is stored. Replace it: "
            "responses-proxy admin-token --new"
        )
    token = new_token()
    asyncio.run(_put(url, token))
    return token


def _database(settings: CommonSettings) -> str:
    """The router's database. Raises instead of creating a missing SQLite file."""
    url = DatabaseSettings.read(os.environ).url
    path = Path(url.removeprefix(SQLITE))
    if url.startswith(SQLITE) and not path.exists():
        raise SettingError(
            "PROXY_DATA_DIR",
            f"is {settings.data_dir}, which has no {FILE}, and {path} does not exist",
            "Run this command where `up` or the router runs, with the same settings",
        )
    return url


async def _put(url: str, token: str) -> None:
    store = open_store(url)
    try:
        row = AdminTokenRow(store.fetch)
        await row.put(token_hash(token.encode()), datetime.now(UTC))
    finally:
        await store.close()


def _fail(text: str, code: int) -> None:
    print(f"responses-proxy: {' '.join(text.split())}", file=sys.stderr)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
