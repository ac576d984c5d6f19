"""Generates values for a JSON schema: tool arguments and structured answers. Pure."""

from typing import Any

from libs.simulator.wire import Json

COMMAND = "echo hi"
_MAX_DEPTH = 12

_SIMPLE: dict[str, Any] = {"integer": 1, "number": 1.0, "boolean": True, "null": None}


def example(schema: Any, text: str, *, depth: int = 0) -> Any:
    """The smallest value that satisfies an ordinary schema."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return text
    if "const" in schema:
        return schema["const"]
    for name in ("enum", "anyOf", "oneOf", "allOf"):
        options = schema.get(name)
        if options:
            first = options[0]
            return first if name == "enum" else example(first, text, depth=depth + 1)
    return _by_type(schema, text, depth)


def _by_type(schema: Json, text: str, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return _object(schema, text, depth)
    if kind == "array":
        count = schema.get("minItems", 0)
        return [example(schema.get("items"), text, depth=depth + 1)] * count
    return _SIMPLE.get(kind, text)


def _object(schema: Json, text: str, depth: int) -> Json:
    properties = schema.get("properties", {})
    return {
        name: example(properties.get(name), text, depth=depth + 1)
        for name in schema.get("required", ())
    }


def arguments(parameters: Any) -> Json:
    """Arguments for a tool: a harmless command where the tool takes one."""
    value: Json = _object(parameters if isinstance(parameters, dict) else {}, "hi", 0)
    properties = (parameters or {}).get("properties", {})
    for name in ("cmd", "command"):
        if name in properties:
            is_list = properties[name].get("type") == "array"
            value[name] = ["bash", "-lc", COMMAND] if is_list else COMMAND
    return value
