"""Options and output that all commands over the admin API share."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.cli.admin.access import access
from libs.cli.admin.client import AdminApi

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the proxy. Default: PROXY_PUBLIC_URL, or the gateway of this "
        "machine.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="File with the admin token. Default: PROXY_ADMIN_TOKEN, or the file that "
        "`up` keeps in PROXY_DATA_DIR.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_api(url: str | None, token_file: Path | None) -> AdminApi:
    """Raises `ProxyError`."""
    return AdminApi(access(os.environ, url, token_file))


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
