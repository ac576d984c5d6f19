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

UNUSABLE = 2  # exit code: the configuration cannot work; starting again is no use

app = typer.Typer(
    name="responses-proxy",
    help="A self-hosted gateway in front of the OpenAI Responses API. Configured by "
    "environment variables; see README.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def up() -> None:
    """Start everything in the foreground; what is not configured is embedded."""
    start_everything(os.environ)


@app.command()
def gateway() -> None:
    """Run the gateway alone: the data plane, /v1."""
    if GatewaySettings.read(os.environ).in_process_worker:
        check_settings(os.environ)
        check_ports(os.environ, "gateway", "ingest")
        _exec([*PYTHON, "libs.cli.gateway_with_ingest"])
    _become("gateway")


@app.command()
def router() -> None:
    """Run the router alone: routing state, admin API, dashboard."""
    _become("router")


@app.command()
def health() -> None:
    """Run the health checks alone."""
    _become("health")


@app.command()
def ingest() -> None:
    """Run ingest alone: telemetry to SQL."""
    _become("ingest")


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9000,
    keys: Annotated[
        str, typer.Option(help="Accepted keys, as key=account,key=account.")
    ] = ",".join(f"{key}={account}" for key, account in SIMULATED_KEYS.items()),
) -> None:
    """Run the simulated upstream alone."""
    _exec(simulator_command(host, port, keys))


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date; ingest also does so at its start."""
    _exec([*PYTHON, "libs.cli.operations.migrate"])


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def admin_token(context: typer.Context) -> None:
    """Show the link that logs in to the dashboard, or replace its token."""
    _exec([*PYTHON, "libs.cli.operations.admin_token", *context.args])


@app.command()
def doctor() -> None:
    """Check the configuration and every connection; say what is wrong and the fix."""
    # A process of its own: its libraries would slow down every other command.
    _exec([*PYTHON, "libs.cli.operations.doctor"])


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def dead_letters(context: typer.Context) -> None:
    """List, show and send again what could not be stored."""
    _exec([*PYTHON, "libs.cli.operations.dead_letters", *context.args])


def _become(service: str) -> None:
    check_settings(os.environ)
    check_ports(os.environ, service)
    _exec(service_command(service, os.environ))


def _exec(command: list[str]) -> None:
    """Turn into `command`: signals reach it, its exit code is ours."""
    raise_descriptor_limit()
    os.execv(command[0], command)  # noqa: S606


def run() -> None:
    try:
        app()
    except SettingError as error:
        print(f"responses-proxy: {error}", file=sys.stderr)
        sys.exit(UNUSABLE)


def run_worker() -> None:
    """`responses-proxy-worker`, the hosted product's name for ingest."""
    sys.argv[1:] = ["ingest", *sys.argv[1:]]
    run()
