"""Where the keys of a provider come from: never from the file or the command line
itself."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path as File
from typing import Any

from libs.cli.admin.kinds import PROVIDERS, Fields, Kind
from libs.cli.admin.schema import KindSchema, Path, Problem, Schema
from libs.common.errors import ProxyError

API_KEY, REFERENCE = "api_key", "credential_ref"
OF_ENVIRONMENT, OF_FILE = "api_key_env", "api_key_file"
SOURCES = (REFERENCE, OF_ENVIRONMENT, OF_FILE)
ADVICE = f"give {REFERENCE}, {OF_ENVIRONMENT} or {OF_FILE}"
LONGEST = 65_536
_TEXT: Schema = {"type": "string", "minLength": 1}


def with_sources(kind: Kind, schema: KindSchema) -> KindSchema:
    """The fields that people give: instead of a key, where it is."""
    if kind is not PROVIDERS:
        return schema
    return replace(
        schema, create=_replaced(schema.create), change=_replaced(schema.change)
    )


def _replaced(schema: Schema) -> Schema:
    properties = {k: v for k, v in schema["properties"].items() if k != API_KEY}
    added = {OF_ENVIRONMENT: _TEXT, OF_FILE: _TEXT}
    return {**schema, "properties": {**properties, **added}}


def source_problems(kind: Kind, fields: Fields, path: Path) -> Iterator[Problem]:
    """Whether a key is given itself, or by more than one source."""
    if kind is not PROVIDERS:
        return
    if API_KEY in fields:
        yield Problem((*path, API_KEY), f"keys are not written here; {ADVICE}")
    given = [name for name in SOURCES if fields.get(name) is not None]
    if len(given) > 1:
        yield Problem(path, f"{' and '.join(given)} exclude each other")


def without_sources(fields: Fields) -> dict[str, Any]:
    """The fields as the API takes them, without a key."""
    return {k: v for k, v in fields.items() if k not in {OF_ENVIRONMENT, OF_FILE}}


def has_key_source(fields: Fields) -> bool:
    return OF_ENVIRONMENT in fields or OF_FILE in fields


def read_key(fields: Fields, environ: Mapping[str, str], folder: File) -> str:
    """The keys themselves. A file is relative to `folder`. Raises `ProxyError`."""
    name = fields.get(OF_ENVIRONMENT)
    if name is not None:
        if value := environ.get(name, "").strip():
            return value
        raise ProxyError(f"{OF_ENVIRONMENT}: the variable {name} is not set")
    path = folder / File(fields[OF_FILE]).expanduser()
    try:
        with path.open() as file:
            value = file.read(LONGEST + 1).strip()
    except OSError as error:
        raise ProxyError(f"{OF_FILE}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProxyError(f"{OF_FILE}: {path} is not text") from None
    if not value or len(value) > LONGEST:
        raise ProxyError(f"{OF_FILE}: {path} is empty or longer than {LONGEST}")
    return value
