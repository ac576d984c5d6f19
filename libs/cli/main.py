"""The command line `responses-proxy`."""

import os
import sys
from typing import Annotated

import typer

from libs.cli.commands import PYTHON, service_command, simulator_command
from libs.cli.operations.settings_check import check_ports, check_settings
from libs.cli.plan import SIMULATED_KEYS
from libs.cli.up import raise_descriptor_limit
from libs.cli.up import up as start_everything
from libs.common.errors import SettingError
from libs.common.settings.services import GatewaySettings

UNUSABLE = 2  # exit code: the configuration is invalid, a restart does not help

app = typer.Typer(
    name="responses-proxy",
    help="A self-hosted gateway in front of the OpenAI Responses API. "
    "Environment variables configure it; see README.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def up() -> None:
    """Start everything in the foreground. Redis, SQL and the upstream are embedded
    unless configured."""
    start_everything(os.environ)


@app.command()
def gateway() -> None:
    """Run the gateway: it forwards /v1."""
    if GatewaySettings.read(os.environ).in_process_worker:
        check_settings(os.environ)
        check_ports(os.environ, "gateway", "ingest")
        _exec([*PYTHON, "libs.cli.gateway_with_ingest"])
    _become("gateway")


@app.command()
def router() -> None:
    """Run the router: routing state, admin API, dashboard."""
    _become("router")


@app.command()
def health() -> None:
    """Run the health checks."""
    _become("health")


@app.command()
def ingest() -> None:
    """Run ingest: it stores telemetry in SQL."""
    _become("ingest")


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9000,
    keys: Annotated[
        str, typer.Option(help="Accepted keys: key=account,key=account.")
    ] = ",".join(f"{key}={account}" for key, account in SIMULATED_KEYS.items()),
) -> None:
    """Run the simulated upstream."""
    _exec(simulator_command(host, port, keys))


@app.command()
def migrate() -> None:
    """Upgrade the database schema. Ingest also does so when it starts."""
    _exec([*PYTHON, "libs.cli.operations.migrate"])


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def admin_token(context: typer.Context) -> None:
    """Print the dashboard's login link, or replace the admin token."""
    _exec([*PYTHON, "libs.cli.operations.admin_token", *context.args])


@app.command()
def doctor() -> None:
    """Check the configuration and every connection; print problems and their fixes."""
    # In a process of its own: its imports would slow down every other command.
    _exec([*PYTHON, "libs.cli.operations.doctor"])


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def dead_letters(context: typer.Context) -> None:
    """List, show and resend events that could not be stored."""
    _exec([*PYTHON, "libs.cli.operations.dead_letters", *context.args])


def _become(service: str) -> None:
    check_settings(os.environ)
    check_ports(os.environ, service)
    _exec(service_command(service, os.environ))


def _exec(command: list[str]) -> None:
    """Replace this process by `command`, which gets the signals and sets the exit
    code."""
    raise_descriptor_limit()
    os.execv(command[0], command)  # noqa: S606


def run() -> None:
    try:
        app()
    except SettingError as error:
        print(f"responses-proxy: {error}", file=sys.stderr)
        sys.exit(UNUSABLE)


def run_worker() -> None:
    """`responses-proxy-worker`: an alias of `responses-proxy ingest`."""
    sys.argv[1:] = ["ingest", *sys.argv[1:]]
    run()
