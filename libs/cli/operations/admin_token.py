"""Print the link that logs in to the dashboard.

Run this with the environment of the router. `up` keeps the token in its data directory.
Other deployments keep only its hash, in SQL: that token can be replaced, but not
shown. With --name, creates another token, or revokes it; SQL has only its hash."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from libs.cli.operations.settings_check import address
from libs.cli.run import new_app, run_app
from libs.common.admin_token import (
    FILE,
    Role,
    checked_name,
    login_link,
    new_token,
    read_file,
    replace_file,
    token_hash,
)
from libs.common.errors import ProxyError, SettingError
from libs.common.settings.base import CommonSettings, DatabaseSettings
from libs.common.settings.browsers import BrowserSettings
from libs.common.store.admin.tokens import AdminTokenRow, NamedTokenRows
from libs.common.store.factory import missing_file, open_store
from libs.common.store.interface import COMMAND_LINE

app = new_app()


@app.command(help=__doc__)
def admin_token(
    new: Annotated[
        bool,
        typer.Option("--new", help="Replace the token; the old one becomes invalid."),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Create another token, with this name."),
    ] = None,
    role: Annotated[
        Role, typer.Option("--role", help="Of the named token: a viewer may only read.")
    ] = "viewer",
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Revoke the named token.")
    ] = False,
) -> None:
    if (name is None and revoke) or (name is not None and new):
        raise ProxyError("use --revoke with --name, and --new without it")
    settings = BrowserSettings.read(os.environ)
    origin = settings.public_url or address(settings, "gateway")
    if name is not None and revoke:
        asyncio.run(_revoke(_database(settings), name))
        print(f"revoked {name}")
        return
    try:
        if name is not None:
            token = asyncio.run(_mint(_database(settings), name, role))
        else:
            token = _token(settings, new=new)
    except OSError as error:
        raise ProxyError(f"{FILE} cannot be written ({error.strerror})") from None
    link = login_link(origin, token)
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
    if (path := missing_file(url)) is not None:
        raise SettingError(
            "PROXY_DATA_DIR",
            f"is {settings.data_dir}, which has no {FILE}, and {path} does not exist",
            "Run this command where `up` or the router runs, with the same settings",
        )
    return url


async def _put(url: str, token: str) -> None:
    async with open_store(url) as store:
        row = AdminTokenRow(store.fetch).by(COMMAND_LINE)
        await row.put(token_hash(token.encode()), datetime.now(UTC))


async def _mint(url: str, name: str, role: Role) -> str:
    try:
        checked_name(name)
    except ValueError as error:
        raise ProxyError(f"--name: {error}") from None
    token = new_token()
    async with open_store(url) as store:
        rows = NamedTokenRows(store.fetch).by(COMMAND_LINE)
        hashed = token_hash(token.encode())
        if await rows.add(name, role, hashed, datetime.now(UTC)) is None:
            raise ProxyError(
                f"there is a token {name} already. Revoke it first: "
                f"responses-proxy admin-token --name {name} --revoke"
            )
    return token


async def _revoke(url: str, name: str) -> None:
    async with open_store(url) as store:
        if await NamedTokenRows(store.fetch).by(COMMAND_LINE).delete(name) is None:
            raise ProxyError(f"there is no token with the name {name!r}")


if __name__ == "__main__":
    run_app(app, "responses-proxy admin-token")
