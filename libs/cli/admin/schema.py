"""The fields that the admin API takes, from its OpenAPI document, and values checked
against them. Pure.

Only the part of JSON Schema that the document uses is understood; what is not
understood is left to the API."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from ipaddress import ip_network
from typing import Any

from libs.cli.admin.kinds import Kind, nearest
from libs.common.errors import ProxyError

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]
NETWORKS = "ip_allow"  # a field whose rule JSON Schema cannot express
LONGEST_SHOWN = 60

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_NAMES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value at `path`."""

    path: Path
    text: str


@dataclass(frozen=True)
class KindSchema:
    """The fields of a kind: those of a creation, and those that can be changed."""

    create: Schema
    change: Schema

    @property
    def fields(self) -> dict[str, Schema]:
        """Schemas by field, all references resolved."""
        return {**self.change["properties"], **self.create["properties"]}

    @property
    def whole(self) -> Schema:
        """A declared one: every field, with those required that a creation needs."""
        return {**self.create, "properties": self.fields}

    def default(self, field: str) -> Any:
        """What a new row has. A switch that only a change can turn is on."""
        schema = self.fields[field]
        turned = field not in self.create["properties"] and schema["type"] == "boolean"
        return True if turned else schema.get("default")


def kind_schema(document: Mapping[str, Any], kind: Kind) -> KindSchema:
    """The schemas of a kind. Raises `ProxyError` if the API does not have it."""
    collection = f"/admin/{kind.name}"
    one = re.compile(rf"{re.escape(collection)}/\{{\w+\}}")
    try:
        paths = document["paths"]
        (single,) = [path for path in paths if one.fullmatch(path)]
        if kind.put:
            return _of_put(document, kind, paths[single]["put"])
        return KindSchema(
            _body(document, paths[collection]["post"]),
            _body(document, paths[single]["patch"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ProxyError(
            f"this proxy does not describe {collection} in its /openapi.json; upgrade "
            "its routers to the version of this command"
        ) from None


def _of_put(
    document: Mapping[str, Any], kind: Kind, operation: Mapping[str, Any]
) -> KindSchema:
    """What names one is in the path."""
    (named,) = [each for each in operation["parameters"] if each["in"] == "path"]
    change = _body(document, operation)
    properties = {kind.label: named["schema"], **change["properties"]}
    return KindSchema({**change, "properties": properties}, change)


def _body(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Schema:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    resolved: Schema = _resolved(document, schema)
    return {**resolved, "properties": dict(resolved["properties"])}


def _resolved(document: Mapping[str, Any], part: Any) -> Any:
    """A copy without references. The API's schemas are not recursive."""
    if isinstance(part, list):
        return [_resolved(document, each) for each in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if reference is None:
        return {name: _resolved(document, each) for name, each in part.items()}
    target = document["components"]["schemas"][reference.rpartition("/")[2]]
    return {**_resolved(document, target), **{k: part[k] for k in part if k != "$ref"}}


def choices(schema: Schema) -> Sequence[Schema]:
    """The alternatives of a schema, null among them."""
    found: Sequence[Schema] = schema.get("anyOf", [schema])
    return found


def types(schema: Schema) -> set[str]:
    """The JSON types that a value may have; empty if any."""
    return {each["type"] for each in choices(schema) if "type" in each}


def problems(value: Any, schema: Schema, path: Path = ()) -> Iterator[Problem]:
    """What is wrong with a value."""
    fitting = [each for each in choices(schema) if _has_type(value, each)]
    if not fitting:
        wanted = " or ".join(_NAMES.get(name, name) for name in sorted(types(schema)))
        yield Problem(path, f"{_shown(value)} is not {wanted}{_quoting(value, schema)}")
        return
    chosen = fitting[0]
    if isinstance(value, dict):
        yield from _of_mapping(value, chosen, path)
    elif isinstance(value, list):
        yield from _of_list(value, chosen, path)
    else:
        yield from (Problem(path, text) for text in _of_scalar(value, chosen, path))


def _has_type(value: Any, schema: Schema) -> bool:
    name = schema.get("type")
    if name is None:
        return True
    if isinstance(value, bool):  # which is an int in Python
        return bool(name == "boolean")
    return isinstance(value, _TYPES.get(name, (object,)))


def _quoting(value: Any, schema: Schema) -> str:
    scalar = isinstance(value, bool | int | float)
    return "; put it in quotes" if scalar and "string" in types(schema) else ""


def _of_mapping(value: dict[str, Any], schema: Schema, path: Path) -> Iterator[Problem]:
    known = schema.get("properties")
    if known is None:
        return
    for name, each in value.items():
        if name in known:
            yield from problems(each, known[name], (*path, name))
        elif schema.get("additionalProperties") is False:
            yield Problem((*path, name), f"unknown field{nearest(name, known)}")
    for name in schema.get("required", ()):
        if name not in value:
            yield Problem(path, f"{name} is missing")


def _of_list(value: list[Any], schema: Schema, path: Path) -> Iterator[Problem]:
    fewest, most = schema.get("minItems", 0), schema.get("maxItems")
    if len(value) < fewest:
        yield Problem(path, f"needs at least {fewest} of them")
    if most is not None and len(value) > most:
        yield Problem(path, f"has more than {most} of them")
    for place, each in enumerate(value):
        yield from problems(each, schema.get("items", {}), (*path, place))


def _of_scalar(value: Any, schema: Schema, path: Path) -> Iterator[str]:
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if allowed is not None and value not in allowed:
        hint = nearest(str(value), map(str, allowed))
        yield f"{_shown(value)} is not one of {', '.join(map(str, allowed))}{hint}"
    elif isinstance(value, str):
        yield from _of_string(value, schema, path)
    elif value is not None:
        if (bound := schema.get("exclusiveMinimum")) is not None and value <= bound:
            yield f"{_shown(value)} is not more than {bound:g}"
        if (lowest := schema.get("minimum")) is not None and value < lowest:
            yield f"{_shown(value)} is less than {lowest:g}"
        if (highest := schema.get("maximum")) is not None and not value <= highest:
            yield f"{_shown(value)} is more than {highest:g}"


def _of_string(value: str, schema: Schema, path: Path) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield "is empty"
    elif len(value) > schema.get("maxLength", len(value)):
        yield f"is longer than {schema['maxLength']} characters"
    elif (pattern := schema.get("pattern")) and not re.search(pattern, value):
        yield f"{_shown(value)} does not match {pattern}"
    elif schema.get("format") == "date-time" and instant(value) is None:
        yield (
            f"{_shown(value)} is not a time with a time zone, such as "
            "2027-01-31T00:00:00Z"
        )
    elif schema.get("format") == "date" and not _is_day(value):
        yield f"{_shown(value)} is not a day, such as 2027-01-31"
    elif NETWORKS in path and network(value) is None:
        yield (
            f"{_shown(value)} is not an address, nor a network without host bits, "
            "such as 10.1.0.0/16"
        )


def instant(value: str) -> datetime | None:
    """A time with a time zone."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _is_day(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def network(value: str) -> str | None:
    """A network as the API stores it."""
    try:
        return str(ip_network(value))
    except ValueError:
        return None


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return _NAMES["object" if isinstance(value, dict) else "array"]
    text = "null" if value is None else str(value)
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
    return repr(shown) if isinstance(value, str) else shown
