"""Make the proxy have the prices, providers, model aliases, teams and keys of a file.

What is already as the file says stays untouched, so the command can be repeated. The
file is checked as a whole before anything is changed. docs/apply.md describes it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.cli.admin.applying import Step, apply, as_json, lines
from libs.cli.admin.client import AdminApi
from libs.cli.admin.credentials import read_key, with_sources
from libs.cli.admin.declared import declared
from libs.cli.admin.difference import Change, Difference, Scope
from libs.cli.admin.kinds import ORDER
from libs.cli.admin.options import Json, TokenFile, Url, open_api, print_json
from libs.cli.admin.schema import Path as Place
from libs.cli.admin.schema import Problem, kind_schema
from libs.cli.admin.yaml_file import InvalidYaml, Parsed, parse
from libs.cli.checks.finding import Refused
from libs.cli.run import new_app, run_app
from libs.common.errors import ProxyError, SettingError

STDIN = "-"
LARGEST = 4 * 1024 * 1024  # bytes of a file

app = new_app()


class FileProblem(SettingError):
    """A mistake in the file, with its line."""

    def __init__(self, file: str, line: int, text: str) -> None:
        name = "standard input" if file == STDIN else file
        super().__init__(f"{name}:{line}", text, "")

    def __str__(self) -> str:
        return f"{self.variable}: {self.problem}"


@app.command(name="apply", help=__doc__)
def command(  # noqa: PLR0913
    file: Annotated[
        str, typer.Option("--file", "-f", help="The file; - is standard input.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference, change nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete what the sections of the file do not name."
        ),
    ] = False,
    send_keys: Annotated[
        bool,
        typer.Option(
            "--send-keys",
            help="Send the api_key_env and api_key_file of existing providers again.",
        ),
    ] = False,
    as_documents: Json = False,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    parsed = _parsed(file)
    with open_api(url, token_file) as api:
        scope = Scope(prune=prune, send_keys=send_keys)
        steps = _steps(api, file, parsed, scope)
        report = Report(as_documents=as_documents, dry_run=dry_run)
        if dry_run:
            for step in steps:
                report.tell(step.change)
        else:
            try:
                apply(api, steps, report.tell)
            except BaseException as error:  # secrets of new keys are told all the same
                report.end(str(error) or "interrupted")
                raise
    report.end()


def _parsed(file: str) -> Parsed:
    try:
        if file == STDIN:
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(LARGEST + 1)
    except OSError as error:
        raise SettingError(
            "--file", f"{file}: {error.strerror}", "Name a file"
        ) from None
    if len(data) > LARGEST:
        raise FileProblem(file, 1, "is larger than 4 MiB")
    try:
        return parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileProblem(file, line, "is not UTF-8") from None
    except InvalidYaml as error:
        raise FileProblem(file, error.line, error.text) from None


def _steps(api: AdminApi, file: str, parsed: Parsed, scope: Scope) -> Sequence[Step]:
    """What has to be changed, checked as a whole. Raises `Refused`."""
    document = api.document()
    schemas = {
        kind.name: with_sources(kind, kind_schema(document, kind)) for kind in ORDER
    }
    declaration, problems = declared(parsed.value, schemas)
    _refuse(file, parsed, problems)
    rows = {kind.name: api.rows(kind) for kind in ORDER}
    difference = Difference(declaration, rows, schemas, scope)
    _refuse(file, parsed, difference.problems())
    folder = Path() if file == STDIN else Path(file).parent
    steps: list[Step] = []
    missing: list[Problem] = []
    for change in difference.changes():
        try:
            steps.append(Step(change, _key(change, folder)))
        except ProxyError as error:
            place = change.key_of.path if change.key_of else ()
            missing.append(Problem(place, str(error)))
    _refuse(file, parsed, missing)
    return steps


def _key(change: Change, folder: Path) -> str | None:
    if change.key_of is None:
        return None
    return read_key(change.key_of.fields, os.environ, folder)


def _refuse(file: str, parsed: Parsed, problems: Sequence[Problem]) -> None:
    if problems:
        ordered = sorted(problems, key=lambda each: parsed.line(each.path))
        raise Refused(
            [
                FileProblem(file, parsed.line(p.path), f"{_named(p.path)}{p.text}")
                for p in ordered
            ]
        )


def _named(path: Place) -> str:
    """`keys[0].policy.models: `"""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    return f"{text.removeprefix('.')}: " if text else ""


class Report:
    """Prints changes; as JSON all of them at the end."""

    def __init__(self, *, as_documents: bool, dry_run: bool) -> None:
        self._as_documents = as_documents
        self._dry_run = dry_run
        self._count = 0
        self._told: list[dict[str, Any]] = []

    def tell(self, change: Change, secret: str | None = None) -> None:
        self._count += 1
        if self._as_documents:
            self._told.append(as_json(change, secret))
        else:
            print("\n".join(lines(change, secret)), flush=True)

    def end(self, error: str | None = None) -> None:
        """`error` is printed by whoever called; here it is for programs."""
        if self._as_documents:
            told = {"dry_run": self._dry_run, "changes": self._told}
            print_json(told if error is None else {**told, "error": error})
        elif error is None:
            print(self._summary())

    def _summary(self) -> str:
        if not self._count:
            return "nothing to change"
        changes = f"{self._count} change{'s' if self._count > 1 else ''}"
        return f"{changes}, none made (--dry-run)" if self._dry_run else changes


if __name__ == "__main__":
    run_app(app, "responses-proxy apply")
