"""Changes of a row."""

from typing import Any

from pydantic import ConfigDict

from libs.common.contracts.catalogue import Frozen


def _without_defaults(schema: dict[str, Any]) -> None:
    """Whatever is not sent stays as it is, so OpenAPI must not promise a default."""
    for part in schema.get("properties", {}).values():
        part.pop("default", None)


class Change(Frozen):
    """Fields that are sent are changed, others are kept. The defaults of the fields
    are never used."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)
