"""Which admin tokens can be minted."""

import pytest
from pydantic import ValidationError

from services.router.admin.schemas.access import TokenAsk


def test_a_token_may_read_unless_more_is_asked_for() -> None:
    assert TokenAsk(name="ann").role == "viewer"


@pytest.mark.parametrize("name", ["a", "ann@example.com", "ci-2.x_y", "x" * 64])
def test_a_name(name: str) -> None:
    assert TokenAsk(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", "default", "(open)", "(command line)", "a b", "a/b", "-a", "x" * 65]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TokenAsk(name=name)


def test_what_is_no_role() -> None:
    with pytest.raises(ValidationError):
        TokenAsk.model_validate({"name": "ann", "role": "owner"})
