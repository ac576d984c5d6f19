"""The checks that decide whether `up`, or one service, is started. `doctor` runs those
of `up` and reports them in the same words."""

from collections.abc import Iterator

from libs.cli.checks.finding import Check, Context, Finding
from libs.cli.checks.machine import admin_token, data_directory, lock, port, ports
from libs.cli.checks.servers import database, redis, redis_version
from libs.cli.operations.settings_check import setting_problems
from libs.cli.plan import decide
from libs.common.errors import SettingError


def settings(context: Context) -> Iterator[Finding]:
    problems = setting_problems(context.environ)
    yield from map(Finding.refused, problems)
    if not problems:
        yield Finding("settings", "valid")


def plan(context: Context) -> Iterator[Finding]:
    """Whether the settings still fit when `up` has added its own."""
    data_dir = context.settings.data_dir.absolute()
    try:
        additions = decide(context.environ, context.seen, data_dir).environment
    except SettingError as error:
        yield Finding.refused(error)
        return
    merged = {**context.environ, **additions}
    yield from map(Finding.refused, setting_problems(merged))


# In this order; the later ones need valid settings.
REFUSALS: tuple[Check, ...] = (
    *(settings, data_directory, lock, ports),
    *(admin_token, plan, redis, database),
)


def refusals_of(*services: str) -> tuple[Check, ...]:
    """The checks before `services` are started without `up`."""

    def their_ports(context: Context) -> Iterator[Finding]:
        for service in services:
            yield from port(context, service)

    journal = (data_directory,) if "gateway" in services else ()
    return (settings, *journal, their_ports, redis_version)
