"""The command line `responses-proxy`."""

import os
from importlib import metadata
from typing import Annotated

import typer

from libs.cli.checks.finding import Context, refuse
from libs.cli.checks.refusals import refusals_of
from libs.cli.commands import PYTHON, service_command, simulator_command
from libs.cli.environment import prepare
from libs.cli.observe import check_port
from libs.cli.operations.settings_check import check_ports
from libs.cli.plan import SIMULATED_KEYS
from libs.cli.run import UNUSABLE, new_app, run_app
from libs.cli.up import raise_descriptor_limit
from libs.cli.up import up as start_everything
from libs.common.settings.services import GatewaySettings
from libs.simulator.settings import parse_keys

NAME = "responses-proxy"
REDIS_SECONDS = 2.0  # for the answer of Redis before a service is started


app = new_app()
worker = new_app()
# A command of a module of its own, which gets the arguments: its imports would slow
# down every other command.
_passed_on = app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            number = metadata.version(NAME)
        except metadata.PackageNotFoundError:
            number = "unknown (this checkout is not installed)"
        print(f"{NAME} {number}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        is_eager=True,
        callback=_print_version,
        help="Print the version and exit.",
    ),
]


@app.callback(invoke_without_command=True)
def start(context: typer.Context, version: Version = False) -> None:
    """A self-hosted gateway in front of the OpenAI Responses API.

    Environment variables configure it; see README.md."""
    del version  # printed by its callback
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(UNUSABLE)
    if context.invoked_subcommand not in {"simulate", "doctor"}:
        prepare()


@app.command()
def up() -> None:
    """Start everything in the foreground. Redis, SQL and the upstream are embedded
    unless configured."""
    start_everything(os.environ)


@app.command()
def gateway(
    reload: Annotated[
        bool,
        typer.Option(
            "--reload", help="Restart when the code changes (for development)."
        ),
    ] = False,
) -> None:
    """Run the gateway: it forwards /v1."""
    refuse(refusals_of("gateway"), Context(os.environ, REDIS_SECONDS))
    if reload:
        _exec([*PYTHON, "libs.cli.reload"])
    if GatewaySettings.read(os.environ).in_process_worker:
        check_ports(os.environ, "ingest")
        _exec([*PYTHON, "libs.cli.gateway_with_ingest"])
    _exec(service_command("gateway", os.environ))


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
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes any.")
    ] = 9000,
    keys: Annotated[
        str, typer.Option(help="Accepted keys: key=account,key=account.")
    ] = ",".join(f"{key}={account}" for key, account in SIMULATED_KEYS.items()),
) -> None:
    """Run the simulated upstream."""
    try:
        parse_keys(keys)
    except ValueError:
        raise typer.BadParameter("--keys: is not key=account,key=account") from None
    check_port(host, port, "--port", "--host")
    _exec(simulator_command(host, port, keys))


@app.command()
def migrate() -> None:
    """Upgrade the database schema. Ingest also does so when it starts."""
    _exec([*PYTHON, "libs.cli.operations.migrate"])


@_passed_on
def admin_token(context: typer.Context) -> None:
    """Print the dashboard's login link, or replace the admin token."""
    _exec([*PYTHON, "libs.cli.operations.admin_token", *context.args])


@_passed_on
def doctor(context: typer.Context) -> None:
    """Check the configuration and every connection; print problems and their fixes."""
    _exec([*PYTHON, "libs.cli.operations.doctor", *context.args])


@_passed_on
def dead_letters(context: typer.Context) -> None:
    """List, show and resend events that could not be stored."""
    _exec([*PYTHON, "libs.cli.operations.dead_letters", *context.args])


@_passed_on
def keys(context: typer.Context) -> None:
    """List, show, create, change and revoke proxy keys."""
    _manage("keys", context)


@_passed_on
def teams(context: typer.Context) -> None:
    """List, show, create, change and delete teams."""
    _manage("teams", context)


@_passed_on
def providers(context: typer.Context) -> None:
    """List, show, create, change and delete providers."""
    _manage("providers", context)


@_passed_on
def models(context: typer.Context) -> None:
    """List, show, create, change and delete model aliases."""
    _manage("models", context)


@_passed_on
def prices(context: typer.Context) -> None:
    """List, show, create, change and delete the prices of models."""
    _manage("prices", context)


@_passed_on
def apply(context: typer.Context) -> None:
    """Make prices, providers, model aliases, teams and keys those of a YAML file."""
    _exec([*PYTHON, "libs.cli.admin.apply", *context.args])


@worker.command(name="responses-proxy-worker")
def run_ingest(version: Version = False) -> None:
    """Run ingest: it stores telemetry in SQL. The same as `responses-proxy ingest`."""
    del version
    prepare()
    _become("ingest")


def _manage(name: str, context: typer.Context) -> None:
    _exec([*PYTHON, "libs.cli.admin.resources", name, *context.args])


def _become(service: str) -> None:
    refuse(refusals_of(service), Context(os.environ, REDIS_SECONDS))
    _exec(service_command(service, os.environ))


def _exec(command: list[str]) -> None:
    """Replace this process by `command`, which gets the signals and sets the exit
    code."""
    raise_descriptor_limit()
    os.execv(command[0], command)  # noqa: S606


def run() -> None:
    run_app(app, NAME)


def run_worker() -> None:
    run_app(worker, "responses-proxy-worker")
