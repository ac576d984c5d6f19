"""`responses-proxy up`: decides what to start and becomes supervisord."""

import fcntl
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from libs.cli.checks.finding import Context, refuse
from libs.cli.checks.machine import (
    LOCK,
    in_use,
    keeps_token,
    not_writable,
    token_unusable,
)
from libs.cli.checks.refusals import REFUSALS
from libs.cli.commands import PYTHON
from libs.cli.operations.settings_check import PORTS, address
from libs.cli.plan import Plan, decide, with_own_defaults
from libs.cli.process import descriptors
from libs.cli.process.briefing import Briefing
from libs.cli.process.supervisor_config import render
from libs.common.admin_token import ensure_file
from libs.common.runtime.compiled import form
from libs.common.settings.base import CommonSettings

WANTED_DESCRIPTORS = 262_144
PATIENCE_SECONDS = 2.0  # with a server that may be started at the same time


def up(environ: Mapping[str, str]) -> None:
    """Replace this process by supervisord; never returns. Also works as a container's
    PID 1. Raises `Refused` or `SettingError` if it cannot start."""
    started_at = time.time()
    environ = with_own_defaults(environ)
    context = Context(environ, PATIENCE_SECONDS)
    refuse(REFUSALS, context)
    settings = context.settings
    os.umask(0o077)  # captured bodies are private
    data_dir = _prepared(settings.data_dir.absolute())
    lock(data_dir)
    plan = decide(environ, context.seen, data_dir)
    # A container's root, /tmp included, may be read-only.
    merged = {"TMPDIR": str(data_dir / "run"), **environ, **plan.environment}
    if keeps_token(settings):
        _token(data_dir)
    _write(plan, settings, data_dir, started_at)
    os.dup2(sys.stdout.fileno(), descriptors.OUTPUT, inheritable=True)
    raise_descriptor_limit()
    command = [*PYTHON, "libs.cli.process.supervisord", str(data_dir / "run")]
    os.execve(command[0], command, merged)  # noqa: S606 - it shall be PID 1's program


def lock(data_dir: Path) -> None:
    """Lock the data directory until this process, which becomes supervisord, ends. The
    kernel releases the lock however it ends."""
    descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise in_use(data_dir) from None
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


def _prepared(data_dir: Path) -> Path:
    try:
        for directory in (data_dir, data_dir / "logs", data_dir / "run"):
            directory.mkdir(parents=True, exist_ok=True)
        (data_dir / "run").chmod(0o700)  # it contains Redis's socket
        probe = data_dir / "run" / "writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise not_writable(data_dir, error) from None
    return data_dir


def _token(data_dir: Path) -> None:
    """Create the token file, unless it exists. The router and the readiness listener
    read it, so the token is in no process's arguments."""
    try:
        ensure_file(data_dir)
    except OSError as error:
        raise token_unusable(data_dir, error.strerror or str(error)) from None


def _write(
    plan: Plan, settings: CommonSettings, data_dir: Path, started_at: float
) -> None:
    run = data_dir / "run"
    Briefing(
        started_at=started_at,
        choices=[*map(list, plan.choices), ["hot path", form()]],
        addresses={service: address(settings, service) for service in PORTS},
        logs=str(data_dir / "logs"),
        token_dir=str(data_dir) if keeps_token(settings) else None,
    ).write(run)
    (run / "supervisord.conf").write_text(render(plan, data_dir))
    (run / "failed").unlink(missing_ok=True)
