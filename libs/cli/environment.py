"""The environment of a command: secrets read from files, unknown variables reported."""

import os
import sys
from collections.abc import Mapping

from libs.cli.checks.finding import Refused
from libs.common.errors import SettingError
from libs.common.settings.base import StrictSettings
from libs.common.settings.secret_files import with_secret_files
from libs.common.settings.variables import unknown_variables


def examined(
    environ: Mapping[str, str],
) -> tuple[dict[str, str], list[SettingError], list[SettingError]]:
    """The environment with secrets from files, what forbids to use it, and warnings.
    Unknown variables forbid it if PROXY_STRICT_ENV is true."""
    merged, errors = with_secret_files(environ)
    unknown = list(unknown_variables(environ))
    invalid = StrictSettings.problems(environ)  # reported with all other settings
    if not invalid and StrictSettings.read(environ).strict_env:
        return merged, [*errors, *unknown], []
    return merged, errors, unknown


def prepare() -> None:
    """Bring `os.environ` into this form, for this process and those it starts. Prints
    warnings, once: the processes of a service do not run this again. Raises
    `Refused`."""
    merged, errors, warnings = examined(os.environ)
    for warning in warnings:
        print(f"responses-proxy: warning: {warning}", file=sys.stderr, flush=True)
    if errors:
        raise Refused(errors)
    for name in set(os.environ) - set(merged):
        del os.environ[name]
    os.environ.update(merged)
