"""`responses-proxy up`: decides what to start and becomes supervisord."""

import fcntl
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from libs.cli.commands import PYTHON
from libs.cli.observe import observe
from libs.cli.operations.settings_check import (
    PORTS,
    address,
    check_ports,
    check_settings,
)
from libs.cli.plan import Plan, decide
from libs.cli.process import descriptors
from libs.cli.process.supervisor_config import render
from libs.common.admin_token import FILE, ensure_file
from libs.common.errors import SettingError
from libs.common.settings.base import CommonSettings

WANTED_DESCRIPTORS = 262_144


class Briefing(BaseModel):
    """What `up` passes to the readiness listener, in `run/briefing.json`."""

    started_at: float  # Unix time
    choices: tuple[tuple[str, str], ...]
    addresses: dict[str, str]  # service -> URL
    logs: Path
    token_dir: Path | None  # directory of the token file, if `up` keeps the token


def up(environ: Mapping[str, str]) -> None:
    """Replace this process by supervisord; never returns. Also works as a container's
    PID 1. Raises `SettingError` if it cannot start."""
    started_at = time.time()
    check_settings(environ)
    settings = CommonSettings.read(environ)
    os.umask(0o077)  # captured bodies are private
    data_dir = _prepared(settings.data_dir)
    lock(data_dir)
    check_ports(environ, *PORTS)
    plan = decide(environ, observe(CommonSettings.read({}).redis_url), data_dir)
    # A container's root, /tmp included, may be read-only.
    merged = {"TMPDIR": str(data_dir / "run"), **environ, **plan.environment}
    check_settings(merged)
    if _keeps_token(settings):
        _token(data_dir)
    _write(plan, settings, data_dir, started_at)
    os.dup2(sys.stdout.fileno(), descriptors.OUTPUT, inheritable=True)
    raise_descriptor_limit()
    command = [*PYTHON, "libs.cli.process.supervisord", str(data_dir / "run")]
    os.execve(command[0], command, merged)  # noqa: S606 - it shall be PID 1's program


def lock(data_dir: Path) -> None:
    """Lock the data directory until this process, which becomes supervisord, ends. The
    kernel releases the lock however it ends."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingError(
            "PROXY_DATA_DIR",
            f"is {data_dir}, which another `responses-proxy up` is using",
            "Stop that process, or set PROXY_DATA_DIR to another directory",
        ) from None
    os.dup2(descriptor, descriptors.LOCK, inheritable=True)
    os.close(descriptor)


def raise_descriptor_limit() -> None:
    """Thousands of streams need more than the usual 1024 descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _prepared(configured: Path) -> Path:
    data_dir = configured.absolute()
    if any(mark in str(data_dir) for mark in (" ;", " #", "\n", '"', "%")):
        raise SettingError(
            "PROXY_DATA_DIR",
            "contains a character that supervisord's configuration cannot hold",
            'Use a path without %, ", line breaks, " ;" and " #"',
        )
    try:
        for directory in (data_dir, data_dir / "logs", data_dir / "run"):
            directory.mkdir(parents=True, exist_ok=True)
        (data_dir / "run").chmod(0o700)  # it contains Redis's socket
        probe = data_dir / "run" / "writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingError(
            "PROXY_DATA_DIR",
            f"is {data_dir}, which is not writable ({error.strerror})",
            "Choose another directory, or give this user write permission",
        ) from None
    return data_dir


def _keeps_token(settings: CommonSettings) -> bool:
    return settings.admin_token is None and not settings.open_admin


def _token(data_dir: Path) -> None:
    """Create the token file, unless it exists. The router and the readiness listener
    read it, so the token is in no process's arguments."""
    try:
        ensure_file(data_dir)
    except OSError as error:
        raise SettingError(
            "PROXY_DATA_DIR",
            f"is {data_dir}, where {FILE} cannot be read or created ({error.strerror})",
            "Make this user the owner of that file, or set PROXY_ADMIN_TOKEN",
        ) from None


def _write(
    plan: Plan, settings: CommonSettings, data_dir: Path, started_at: float
) -> None:
    run = data_dir / "run"
    briefing = Briefing(
        started_at=started_at,
        choices=plan.choices,
        addresses={service: address(settings, service) for service in PORTS},
        logs=data_dir / "logs",
        token_dir=data_dir if _keeps_token(settings) else None,
    )
    (run / "briefing.json").write_text(briefing.model_dump_json())
    (run / "supervisord.conf").write_text(render(plan, data_dir))
    (run / "failed").unlink(missing_ok=True)
