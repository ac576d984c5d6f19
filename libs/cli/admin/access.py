"""Where the admin API is, and the token for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.cli.operations.settings_check import address
from libs.common.admin_token import FILE, read_file
from libs.common.errors import ProxyError, SettingError
from libs.common.settings.browsers import BrowserSettings
from libs.common.settings.messages import SettingErrorCarrier
from libs.common.settings.upstreams import checked_url

LONGEST_TOKEN = 4096


@dataclass(frozen=True)
class Access:
    """`source` says where the token is from; there may be none, for a proxy that
    requires none. `environ` is that of the command."""

    url: str
    token: str | None = field(repr=False)
    source: str


def access(
    environ: Mapping[str, str], url: str | None, token_file: Path | None
) -> Access:
    """The options decide, then the settings. Raises `SettingError` or `ProxyError`."""
    settings = BrowserSettings.read(environ)
    if url is not None:
        try:
            chosen = checked_url("--url", url)
        except SettingErrorCarrier as error:
            raise error.setting_error from None
        if chosen.endswith("/v1"):
            raise SettingError("--url", "ends in /v1", "Leave that out")
    else:
        chosen = settings.public_url or address(settings, "gateway")
    if token_file is not None:
        return Access(chosen, _read(token_file), "--token-file")
    if settings.admin_token is not None:
        return Access(chosen, settings.admin_token, "PROXY_ADMIN_TOKEN")
    kept = read_file(settings.data_dir)
    return Access(chosen, kept, str(settings.data_dir / FILE) if kept else "")


def _read(path: Path) -> str:
    try:
        with path.open() as file:
            token = file.read(LONGEST_TOKEN + 1).strip()
    except OSError as error:
        raise ProxyError(f"--token-file: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not token.isascii() or not token.isprintable() or not token:
        raise SettingError("--token-file", f"{path} holds no token", "Name its file")
    if len(token) > LONGEST_TOKEN:
        raise SettingError("--token-file", f"{path} is too long", "Name its file")
    return token
