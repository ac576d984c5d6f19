"""Renders the supervisord configuration of a plan. (pure)"""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from libs.cli.commands import PYTHON
from libs.cli.plan import Plan, Program
from libs.cli.process import descriptors

# Groups start in this order and stop in reverse: the gateway's last events reach Redis
# and ingest stores them before Redis stops.
GROUPS = ("base", "services", "front")


def render(plan: Plan, data_dir: Path) -> str:
    """The content of supervisord.conf."""
    logs, run = data_dir / "logs", data_dir / "run"
    sections = [
        _section(
            "supervisord",
            {
                "nodaemon": "true",
                "silent": "true",  # logs to its file only
                "logfile": logs / "supervisord.log",
                "logfile_maxbytes": "10MB",
                "logfile_backups": "3",
                "pidfile": run / "supervisord.pid",
                "childlogdir": logs,
                "identifier": "responses-proxy",
                "minfds": descriptors.FIRST_KEPT,
                "minprocs": 16,
            },
        ),
        _section(
            f"eventlistener:{descriptors.LISTENER}",
            {
                "command": shlex.join(
                    (*PYTHON, "libs.cli.readiness_listener", str(run))
                ),
                "events": "PROCESS_STATE_FATAL",
                "priority": 1,  # started first, stopped last
                "stopwaitsecs": 1,
                "killasgroup": "true",
                "stdout_logfile": "NONE",  # standard output carries the event protocol
                **_log("stderr", logs / "watch.log"),
            },
        ),
    ]
    for position, group in enumerate(GROUPS, start=1):
        programs = [p for p in plan.programs if p.group == group]
        if programs:
            sections += _group(group, programs, priority=position * 10, logs=logs)
    return "\n".join(sections)


def _group(
    name: str, programs: Iterable[Program], *, priority: int, logs: Path
) -> list[str]:
    named = list(programs)
    members = ",".join(program.name for program in named)
    return [
        _section(f"group:{name}", {"programs": members, "priority": priority}),
        *(_program(program, logs) for program in named),
    ]


def _program(program: Program, logs: Path) -> str:
    environment = ",".join(f'{k}="{v}"' for k, v in program.environment.items())
    return _section(
        f"program:{program.name}",
        {
            "command": shlex.join(program.command),
            "environment": environment,
            "autorestart": "true",
            # A Granian that cannot import its application exits after some seconds;
            # five such starts in a row are FATAL.
            "startsecs": 3,
            "startretries": 4,
            "stopwaitsecs": program.stop_seconds,
            # SIGTERM goes to the main process only, which stops its workers; at the
            # deadline the whole process group is killed.
            "stopasgroup": "false",
            "killasgroup": "true",
            "redirect_stderr": "true",
            **_log("stdout", logs / f"{program.name}.log"),
        },
    )


def _log(stream: str, path: Path) -> dict[str, object]:
    return {
        f"{stream}_logfile": path,
        f"{stream}_logfile_maxbytes": "10MB",
        f"{stream}_logfile_backups": 3,
    }


def _section(name: str, values: Mapping[str, object]) -> str:
    # supervisord expands % sequences.
    lines = [f"{key}={str(value).replace('%', '%%')}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])
