"""Runs a command line: every error is one line, and a closed pipe is no error."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from pydantic import ValidationError

from libs.cli.checks.finding import Refused
from libs.common.errors import ProxyError, SettingError
from libs.common.store.interface import SchemaTooNew

# Exit codes. UNUSABLE: the configuration is invalid, a restart does not help.
FAILED, UNUSABLE = 1, 2
INTERRUPTED = 130
PIPE_CLOSED = 1  # the same as of Click

# Kinds of pydantic's errors, which Typer reports, and what they mean.
_MEANINGS = {
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "int_parsing_size": "is not a whole number",
    "float_parsing": "is not a number",
    "greater_than_equal": "is less than {ge}",
    "less_than_equal": "is more than {le}",
}


def new_app(text: str | None = None) -> typer.Typer:
    """A Typer that prints plain help, and leaves errors to `run_app`."""
    return typer.Typer(
        help=text,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def run_app(app: typer.Typer, name: str) -> NoReturn:
    """Run `app`, which help and errors call `name`, and exit."""
    run_quietly(lambda: _code(app, name))


def run_quietly(work: Callable[[], int]) -> NoReturn:
    """Exit with the code that `work` returns, or with that of its error. A reader that
    closes the pipe early ends it without a traceback."""
    try:
        code = work()
        sys.stdout.flush()
    except Refused as refused:
        code = _complain(UNUSABLE, *map(str, refused.problems))
    except (SettingError, SchemaTooNew) as error:
        code = _complain(UNUSABLE, str(error))
    except ProxyError as error:
        code = _complain(FAILED, str(error))
    except BrokenPipeError:  # `... | head -1`
        _discard_output()
        code = PIPE_CLOSED
    sys.exit(code)


def _code(app: typer.Typer, name: str) -> int:
    try:
        return int(app(prog_name=name, standalone_mode=False) or 0)
    except typer.TyperException as error:
        return _complain(UNUSABLE, _usage(error, name))
    except typer.Abort:
        return INTERRUPTED


def _complain(code: int, *lines: str) -> int:
    for line in lines:
        print(f"responses-proxy: {' '.join(line.split())}", file=sys.stderr)
    return code


def _usage(error: typer.TyperException, name: str) -> str:
    """What is wrong with the arguments, in our words."""
    context: Any = getattr(error, "ctx", None)
    cause = error.__cause__
    message = error.format_message().removeprefix("Invalid value: ").rstrip(".")
    if isinstance(cause, ValidationError):
        option = max(getattr(error, "param").opts, key=len)  # noqa: B009
        message = f"{option}: {_meaning(cause)}"
    command = context.command_path if context is not None else name
    return f"{message}. See `{command} --help`"


def _meaning(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    meaning = _MEANINGS.get(first["type"], "is not valid")
    return meaning.format(**first.get("ctx", {}))


def _discard_output() -> None:
    """The interpreter flushes standard output once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
