"""The generated admin token: its format, its login link, and the file in the data
directory in which `up` keeps it.

A token has 256 random bits, so a plain SHA-256 is enough to store and compare it; see
libs.common.proxy_keys."""

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Literal

FILE = "admin-token"
DEFAULT = "default"  # the name of the first token; others are in SQL, with a name
Role = Literal["admin", "viewer"]  # a viewer may only read
ADMIN: Role = "admin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
TOKEN_BYTES = 32
_LONGEST = 4096


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def checked_name(name: str) -> str:
    """A name for a token. Raises `ValueError`."""
    if name == DEFAULT:
        raise ValueError("the first token has the name default, choose another")
    if _NAME.fullmatch(name) is None:
        raise ValueError("use 1 to 64 letters, digits and . _ @ -")
    return name


def login_link(origin: str, token: str) -> str:
    """A URL that opens the dashboard and logs in. Browsers do not send the fragment
    to servers, so the token appears in no access log and no Referer header."""
    return f"{origin}/#token={token}"


def read_file(data_dir: Path) -> str | None:
    """Return the token in the data directory, or None if the file is absent, empty or
    unreadable."""
    try:
        with (data_dir / FILE).open() as file:
            return file.read(_LONGEST).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def ensure_file(data_dir: Path) -> str:
    """Return the token in the data directory; create it if absent. Raises `OSError`."""
    path = data_dir / FILE
    try:
        path.chmod(0o600)
    except FileNotFoundError:
        return _create(data_dir)
    # The file is put in place complete, so an empty one was never written by us.
    return read_file(data_dir) or replace_file(data_dir)


def _create(data_dir: Path) -> str:
    token, path = new_token(), data_dir / FILE
    draft = _draft(data_dir, token)
    try:
        os.link(draft, path)
    except FileExistsError:  # another process created it first
        return read_file(data_dir) or token
    finally:
        draft.unlink()
    return token


def replace_file(data_dir: Path) -> str:
    """Replace the file with a new token, and return it. Raises `OSError`."""
    token = new_token()
    _draft(data_dir, token).replace(data_dir / FILE)
    return token


def _draft(data_dir: Path, token: str) -> Path:
    """Write a temporary file, readable by its owner only, to be moved into place."""
    draft = data_dir / f".{FILE}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())
    return draft
