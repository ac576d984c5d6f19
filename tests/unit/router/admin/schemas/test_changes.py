"""Changes of rows."""

import pytest

from services.router.admin.schemas.changes import Change
from services.router.admin.schemas.keys import KeyChange, TeamChange
from services.router.admin.schemas.registry import ModelChange, ProviderChange


@pytest.mark.parametrize("model", [KeyChange, TeamChange, ModelChange, ProviderChange])
def test_what_is_not_sent_has_no_default_in_openapi(model: type[Change]) -> None:
    assert issubclass(model, Change)
    schema = model.model_json_schema()
    assert schema["properties"]
    assert [p for p in schema["properties"].values() if "default" in p] == []
    assert model().model_fields_set == set()
