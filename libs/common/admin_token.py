"""The admin token that is made where none is configured: what it looks like, the link
that logs in with it, and the file in the data directory that `up` keeps it in.

It is 256 random bits, so a plain SHA-256 is compared and stored; see
libs.common.proxy_keys."""

import hashlib
import os
import secrets
from pathlib import Path

FILE = "admin-token"
TOKEN_BYTES = 32
_LONGEST = 4096


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def login_link(origin: str, token: str) -> str:
    """Opens the dashboard with the token. Browsers send no server what follows the
    `#`, so it is in no access log and in no Referer."""
    return f"{origin}/#token={token}"


def read_file(data_dir: Path) -> str | None:
    """The token in the data directory; None when there is none, or none that may be
    read."""
    try:
        with (data_dir / FILE).open() as file:
            return file.read(_LONGEST).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def ensure_file(data_dir: Path) -> str:
    """The token in the data directory, made if there is none. Raises `OSError`."""
    path = data_dir / FILE
    try:
        path.chmod(0o600)
    except FileNotFoundError:
        return _first(data_dir)
    # It is put in place whole, so what holds no token never did.
    return read_file(data_dir) or replace_file(data_dir)


def _first(data_dir: Path) -> str:
    token, path = new_token(), data_dir / FILE
    draft = _draft(data_dir, token)
    try:
        os.link(draft, path)
    except FileExistsError:  # another process was faster
        return read_file(data_dir) or token
    finally:
        draft.unlink()
    return token


def replace_file(data_dir: Path) -> str:
    """A new token in the file's place. Raises `OSError`."""
    token = new_token()
    _draft(data_dir, token).replace(data_dir / FILE)
    return token


def _draft(data_dir: Path, token: str) -> Path:
    """A file that will be put in place whole, and that nobody else may read."""
    draft = data_dir / f".{FILE}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())
    return draft
