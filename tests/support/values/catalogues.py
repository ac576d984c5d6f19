"""Resources with default values."""

from typing import Any

from libs.common.contracts.catalogue import Resource


def made_resource(id_: str = "openai-1", **given: Any) -> Resource:
    values: dict[str, Any] = {
        "id": id_,
        "name": id_,
        "pool_id": "main",
        "account_id": id_,
        "weight": 1,
        "base_url": "https://api.openai.com/v1",
        "credential": "env:OPENAI_API_KEY",
    }
    return Resource(**{**values, **given})
