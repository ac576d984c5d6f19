"""Which requests can be explained."""

import pytest
from pydantic import ValidationError

from services.router.admin.schemas.explain import ExplainAsk


def test_the_default_is_a_request_to_the_responses_api() -> None:
    asked = ExplainAsk()
    assert (asked.method, asked.path) == ("POST", "/v1/responses")


def test_an_unknown_method() -> None:
    with pytest.raises(ValidationError):
        ExplainAsk.model_validate({"method": "BREW"})
