"""Check the configuration and every connection; print problems and their fixes.

One line for each check. Exit code: 0 if all is well; 2 if `responses-proxy up` refuses
to start with these settings, which it reports in the same words; else 1 if something
cannot be used. Neither keys nor the user and password of a URL are printed."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from libs.cli.checks.finding import Check, Context, Finding, Level
from libs.cli.checks.machine import hot_path
from libs.cli.checks.refusals import REFUSALS, settings
from libs.cli.checks.upstreams import browsers, providers, upstreams
from libs.cli.environment import examined
from libs.cli.plan import with_own_defaults
from libs.cli.run import FAILED, UNUSABLE, new_app, run_app
from libs.common.settings.variables import is_of_clients

TIMEOUT_SECONDS = 5.0
CHECKS: tuple[Check, ...] = (*REFUSALS, hot_path, browsers, providers, upstreams)

app = new_app()


@app.command(help=__doc__)
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object on each line.")
    ] = False,
    running: Annotated[
        bool,
        typer.Option(
            "--running",
            help="For use beside a running service: its port may be in use.",
        ),
    ] = False,
) -> None:
    raise typer.Exit(examine(os.environ, as_json=as_json, running=running))


def examine(
    environ: Mapping[str, str], *, as_json: bool = False, running: bool = False
) -> int:
    """Print every finding as it is made; returns the exit code."""
    levels = set()
    for finding in _findings(environ, running=running):
        levels.add(finding.level)
        print(_json(finding) if as_json else finding, flush=True)
    if Level.REFUSED in levels:
        return UNUSABLE
    return FAILED if Level.FAILED in levels else 0


def _findings(environ: Mapping[str, str], *, running: bool) -> Iterator[Finding]:
    merged, errors, warnings = examined(environ)
    yield from map(Finding.refused, errors)
    yield from map(Finding.warning, warnings)
    for name in sorted(environ):
        if is_of_clients(name) and environ[name]:
            yield Finding("environment", f"{name} is for clients; the proxy ignores it")
    if errors:
        return  # what was in the files is unknown
    context = Context(with_own_defaults(merged), TIMEOUT_SECONDS, running=running)
    for check in CHECKS:
        refused = False
        for finding in check(context):
            refused = refused or finding.level is Level.REFUSED
            yield finding
        if refused and check is settings:
            return  # the other checks would fail on the same value


def _json(finding: Finding) -> str:
    return json.dumps(
        {
            "level": finding.level,
            "subject": finding.subject,
            "state": finding.state,
            "fix": finding.fix or None,
        }
    )


if __name__ == "__main__":
    run_app(app, "responses-proxy doctor")
