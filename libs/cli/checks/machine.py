"""Checks of this machine: the data directory, its lock and token, and ports."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from libs.cli.checks.finding import Context, Finding, Level
from libs.cli.operations.settings_check import PORTS, address, check_port_of
from libs.cli.readiness import readiness
from libs.common.admin_token import FILE, read_file
from libs.common.errors import SettingError, shown
from libs.common.runtime.compiled import form
from libs.common.settings.base import CommonSettings

LOCK = "lock"
# Directories that `up` creates in the data directory.
PARTS = ("", "logs", "run")


def data_directory(context: Context) -> Iterator[Finding]:
    """Whether `up` can write to the data directory, without creating it."""
    data_dir = context.settings.data_dir.absolute()
    if any(mark in str(data_dir) for mark in (" ;", " #", "\n", '"', "%")):
        error = SettingError(
            "PROXY_DATA_DIR",
            "contains a character that supervisord's configuration cannot hold",
            'Use a path without %, ", line breaks, " ;" and " #"',
        )
        yield Finding.refused(error)
        return
    for part in PARTS:
        problem = _unwritable(data_dir / part)
        if problem is not None:
            yield Finding.refused(not_writable(data_dir, problem))
            return
    yield Finding("data directory", f"{shown(data_dir)} can be written")


def not_writable(data_dir: Path, problem: OSError) -> SettingError:
    return SettingError(
        "PROXY_DATA_DIR",
        f"is {shown(data_dir)}, which is not writable ({problem.strerror})",
        "Choose another directory, or give this user write permission",
    )


def _unwritable(directory: Path) -> OSError | None:
    """Why no file can be created in `directory`, or in the nearest that exists above
    it. A temporary file tells more than the permissions: a file system may be full or
    read-only."""
    try:
        while not os.path.lexists(directory):
            directory = directory.parent
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return error


def lock(context: Context) -> Iterator[Finding]:
    """Whether another `up` uses the data directory. If it does and its services are
    ready at the configured addresses, it is the proxy that these settings describe."""
    data_dir = context.settings.data_dir.absolute()
    if not _locked(data_dir / LOCK):
        return
    if all(readiness(address(context.settings, service)) is None for service in PORTS):
        context.running = True
        yield Finding("data directory", "in use by the running `responses-proxy up`")
    elif not context.running:
        yield Finding.refused(in_use(data_dir))


def in_use(data_dir: Path) -> SettingError:
    return SettingError(
        "PROXY_DATA_DIR",
        f"is {shown(data_dir)}, which another `responses-proxy up` is using",
        "Stop that process, or set PROXY_DATA_DIR to another directory",
    )


def _locked(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:  # absent: nobody holds it; unwritable: another check says so
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def ports(context: Context) -> Iterator[Finding]:
    for service in PORTS:
        for finding in port(context, service):
            yield finding
            if finding.subject in ("PROXY_HOST", "PROXY_INTERNAL_HOST"):
                return  # wrong for all of them


def port(context: Context, service: str) -> Iterator[Finding]:
    number = getattr(context.settings, PORTS[service][1])
    subject = f"port {number} ({service})"
    try:
        check_port_of(context.settings, service)
    except SettingError as error:
        ours = context.running and readiness(address(context.settings, service)) is None
        if ours:
            yield Finding(subject, "in use by a service that is ready")
        else:
            yield Finding.refused(error)
        return
    yield Finding(subject, "free")


def hot_path(_: Context) -> Iterator[Finding]:
    yield Finding("hot path", form())


def keeps_token(settings: CommonSettings) -> bool:
    """Whether `up` keeps the admin token in the data directory."""
    return settings.admin_token is None and not settings.open_admin


def admin_token(context: Context) -> Iterator[Finding]:
    settings = context.settings
    file = settings.data_dir / FILE
    if settings.open_admin:
        state = "OPEN to everyone who can reach it (PROXY_ALLOW_OPEN_ADMIN=true)"
        yield Finding("admin API", state)
    elif settings.admin_token is not None:
        yield Finding("admin API", "requires the token in PROXY_ADMIN_TOKEN")
    elif (problem := _unusable(file)) is not None:
        yield Finding.refused(token_unusable(settings.data_dir.absolute(), problem))
    elif read_file(settings.data_dir) is None:
        yield Finding("admin API", "the first start will create a token")
    elif file.stat().st_mode & 0o077:
        fix = f"chmod 600 {file}; then replace it: responses-proxy admin-token --new"
        state = f"other users can read the token in {file}"
        yield Finding("admin API", state, fix, Level.FAILED)
    else:
        yield Finding("admin API", f"requires the token in {file}")


def token_unusable(data_dir: Path, cause: str) -> SettingError:
    return SettingError(
        "PROXY_DATA_DIR",
        f"is {shown(data_dir)}, where {FILE} cannot be read or created ({cause})",
        "Make this user the owner of that file, or set PROXY_ADMIN_TOKEN",
    )


def _unusable(file: Path) -> str | None:
    """Why `ensure_file` fails for an existing token file, or None."""
    try:
        found = file.stat()
    except OSError:
        return None
    if file.is_dir():
        return "Is a directory"
    if os.geteuid() not in {0, found.st_uid}:
        return "Operation not permitted"
    return None
