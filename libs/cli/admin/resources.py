"""The commands `responses-proxy keys|teams|providers|models|prices`."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.cli.admin.applying import SECRET
from libs.cli.admin.assignments import InvalidField, fields_of
from libs.cli.admin.client import AdminApi
from libs.cli.admin.credentials import (
    API_KEY,
    has_key_source,
    read_key,
    with_sources,
    without_sources,
)
from libs.cli.admin.kinds import (
    KEYS,
    ORDER,
    PROVIDERS,
    Fields,
    Kind,
    is_revoked,
    nearest,
)
from libs.cli.admin.options import Json, TokenFile, Url, open_api, print_json
from libs.cli.admin.schema import KindSchema, kind_schema
from libs.cli.run import new_app, run_app
from libs.cli.text import plain, table
from libs.common.errors import ProxyError

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Its id; a key's name or id.")
]
Assignments = Annotated[list[str], typer.Argument(metavar="FIELD=VALUE...")]
FIELDS = (
    "Fields are those of docs/api.md. `null` removes a value; lists are separated by "
    "commas, mappings are YAML: policy='{models: [gpt-5.5*]}'."
)
OF_KEY = (
    " An upstream's key is given as credential_ref=env:NAME, api_key_env=NAME or "
    "api_key_file=PATH."
)


class Commands:
    """The commands of a kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def list_all(
        self, as_json: Json = False, url: Url = None, token_file: TokenFile = None
    ) -> None:
        self.list_keys(as_json=as_json, url=url, token_file=token_file)

    def list_keys(
        self,
        everything: Annotated[
            bool, typer.Option("--all", help="Also revoked ones.")
        ] = False,
        as_json: Json = False,
        url: Url = None,
        token_file: TokenFile = None,
    ) -> None:
        with open_api(url, token_file) as api:
            rows = api.rows(self._kind)
        rows = [row for row in rows if everything or not is_revoked(row)]
        if as_json:
            print_json(rows)
        else:
            print("\n".join(listed(self._kind, rows)))

    def show(
        self,
        name: Name,
        as_json: Json = False,
        url: Url = None,
        token_file: TokenFile = None,
    ) -> None:
        with open_api(url, token_file) as api:
            row = one_of(self._kind, api.rows(self._kind), name)
        _print(row, as_json)

    def create(
        self,
        assignments: Assignments,
        as_json: Json = False,
        url: Url = None,
        token_file: TokenFile = None,
    ) -> None:
        kind = self._kind
        with open_api(url, token_file) as api:
            schema = _schema(api, kind)
            sent = _sent(kind, schema, assignments, new=True)
            taken = {*schema.create["properties"], API_KEY}
            later = {name: sent.pop(name) for name in sent.keys() - taken}
            row = api.create(kind, sent)
            try:
                if later:
                    row = {**row, **api.change(kind, row[kind.id], later)}
            finally:  # the secret of a new key is printed in any case
                _print(row, as_json)

    def change(
        self,
        name: Name,
        assignments: Assignments,
        as_json: Json = False,
        url: Url = None,
        token_file: TokenFile = None,
    ) -> None:
        kind = self._kind
        with open_api(url, token_file) as api:
            sent = _sent(kind, _schema(api, kind), assignments, new=False)
            row = one_of(kind, api.rows(kind), name)
            changed = api.change(kind, row[kind.id], sent)
        _print(changed, as_json)

    def remove(
        self,
        name: Name,
        as_json: Json = False,
        url: Url = None,
        token_file: TokenFile = None,
    ) -> None:
        kind = self._kind
        with open_api(url, token_file) as api:
            row = one_of(kind, api.rows(kind), name)
            removed = api.remove(kind, row[kind.id])
        if as_json:
            print_json(removed)
        else:
            done = "revoked" if kind is KEYS else "deleted"
            print(f"{done} {kind.one} {plain(row[kind.label] or row[kind.id])}")


def app_of(kind: Kind) -> typer.Typer:
    """The commands of a kind, as a program."""
    app = new_app(f"List, show, create, change and {kind.removal} {kind.name}.")
    commands, fields = Commands(kind), FIELDS
    if kind is PROVIDERS:
        fields += OF_KEY
    one = f"a {kind.one}"
    for name, run, text in (
        (
            "list",
            commands.list_keys if kind is KEYS else commands.list_all,
            f"List {kind.name}.",
        ),
        ("show", commands.show, f"Show {one}."),
        ("create", commands.create, f"Create {one}. {fields}"),
        ("change", commands.change, f"Change fields of {one}. {fields}"),
        (kind.removal, commands.remove, f"{kind.removal.capitalize()} {one}."),
    ):
        app.command(name, help=text)(run)
    return app


def _schema(api: AdminApi, kind: Kind) -> KindSchema:
    return with_sources(kind, kind_schema(api.document(), kind))


def _sent(
    kind: Kind, schema: KindSchema, given: Sequence[str], *, new: bool
) -> dict[str, Any]:
    """The fields as the API takes them, with the key of an upstream."""
    try:
        fields = fields_of(kind, schema, given, new=new)
    except InvalidField as error:
        raise typer.BadParameter(str(error)) from None
    sent = without_sources(fields)
    if has_key_source(fields):
        sent[API_KEY] = read_key(fields, os.environ, Path())
    return sent


def one_of(kind: Kind, rows: Sequence[Fields], name: str) -> Fields:
    """The one of this id or name; a revoked key only by its id. Raises `ProxyError`."""
    by_id = [row for row in rows if row[kind.id] == name]
    active = [row for row in rows if not is_revoked(row)]
    found = by_id or [row for row in active if row[kind.label] == name]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(row[kind.id] for row in found)
        raise ProxyError(f"{len(found)} keys have the name {name!r}; give an id: {ids}")
    hint = nearest(name, [row[kind.label] for row in active])
    raise ProxyError(f"there is no {kind.one} {name!r}{hint}")


def listed(kind: Kind, rows: Sequence[Fields]) -> list[str]:
    """The lines of a table."""
    columns = [
        c for c in kind.columns if c != "revoked_at" or any(map(is_revoked, rows))
    ]
    return table(columns, [[_cell(row.get(name)) for name in columns] for row in rows])


def _cell(value: Any) -> str:
    if value in (None, "", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_part(part) for part in value)
    if isinstance(value, dict):
        given = {k: v for k, v in value.items() if v not in (None, [])}
        return json.dumps(given, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _part(value: Any) -> str:
    if isinstance(value, dict) and "upstream_id" in value:  # of a model's targets
        return f"{value['provider_id']}: {value['upstream_id']}"
    if isinstance(value, dict):  # a price
        given = {k: v for k, v in value.items() if v not in (None, "")}
        return " ".join(f"{name} {_cell(each)}" for name, each in given.items())
    return str(value)


def _print(row: Fields, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    width = max(map(len, row))
    for name, value in row.items():
        print(f"{name:<{width}}  {plain(_cell(value))}")
    if SECRET in row:
        print(f"The {SECRET} is shown only now.", file=sys.stderr)


# One program with five names: the first argument says which.
app = new_app()
for _kind in ORDER:
    app.add_typer(app_of(_kind), name=_kind.name)


if __name__ == "__main__":
    run_app(app, "responses-proxy")
