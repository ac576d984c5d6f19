"""Fields from the command line: `name=agent requests_per_minute=60`. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from libs.cli.admin.credentials import API_KEY, source_problems
from libs.cli.admin.declared import item_problems
from libs.cli.admin.kinds import Kind, nearest
from libs.cli.admin.schema import KindSchema, Problem, Schema, problems, types
from libs.cli.admin.yaml_file import InvalidYaml, parse
from libs.common.errors import ProxyError


class InvalidField(ProxyError):
    """Names the field."""


def fields_of(
    kind: Kind, schema: KindSchema, given: Sequence[str], *, new: bool
) -> dict[str, Any]:
    """The fields of a new one, or those to change, checked. `null` removes a value, a
    list is YAML or separated by commas. Raises `InvalidField`."""
    fields: dict[str, Any] = {}
    for one in given:
        name, separator, text = one.partition("=")
        if not separator:
            raise InvalidField(f"{one!r} is not FIELD=VALUE")
        if name in fields:
            raise InvalidField(f"{name} is given twice")
        fields[name] = _value(name, text, schema.fields.get(name, {}))
    _check(kind, schema, fields, new=new)
    return fields


def _check(
    kind: Kind, schema: KindSchema, fields: dict[str, Any], *, new: bool
) -> None:
    known = schema.fields if new else schema.change["properties"]
    for name in fields:
        if name not in known and name != API_KEY:
            raise InvalidField(
                f"unknown field {name!r}{nearest(name, known)} (the fields are "
                f"{', '.join(sorted(known))})"
            )
    for problem in _problems(kind, schema, fields, new=new):
        path = ".".join(map(str, problem.path))
        raise InvalidField(f"{path}: {problem.text}" if path else problem.text)


def _problems(
    kind: Kind, schema: KindSchema, fields: dict[str, Any], *, new: bool
) -> Iterator[Problem]:
    yield from source_problems(kind, fields, ())
    if new:
        yield from item_problems(kind, fields, schema)
    else:
        yield from problems(fields, schema.change)


def _value(name: str, text: str, schema: Schema) -> Any:
    possible = types(schema)
    if text == "null" and "null" in possible:
        return None
    if text == "null" and "array" in possible:
        return []
    if "string" in possible or not possible:
        return text
    if "array" in possible and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if not text:
        raise InvalidField(f"{name} has no value")
    try:
        return parse(text).value
    except InvalidYaml as error:
        raise InvalidField(f"{name}: {error.text}") from None
