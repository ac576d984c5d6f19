"""Parsing bodies of admin requests; errors name the field."""

from typing import Annotated

import pytest
from falcon.asgi import Request, Response
from pydantic import AfterValidator, Field

from libs.common.contracts.events import Frozen
from services.router.admin.request_body import LARGEST_BODY, asked
from tests.support.values.admin import client, problem


def _no_test(value: str) -> str:
    if value == "hush":
        raise ValueError("it is taken.")
    return value


class Part(Frozen):
    weight: float = 1


class Thing(Frozen):
    name: Annotated[str, Field(max_length=5), AfterValidator(_no_test)] = "none"
    parts: tuple[Part, ...] = ()


class Things:
    async def on_post(self, req: Request, resp: Response) -> None:
        resp.media = (await asked(req, Thing, "thing")).model_dump()


API = client({"/things": Things()})


@pytest.mark.parametrize(
    ("body", "name"), [(b"", "none"), (b"{}", "none"), (b'{"name":"a"}', "a")]
)
def test_a_shape_is_read_and_no_body_is_an_empty_one(body: bytes, name: str) -> None:
    assert API.simulate_post("/things", body=body).json == {"name": name, "parts": []}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"name":"longer"}', "name"),
        (b'{"name":"hush"}', "name"),
        (b'{"surprise":1}', "surprise"),
        (b'{"parts":[{},{"weight":"hush"}]}', "parts.1.weight"),
        (b'"' + b"x" * LARGEST_BODY + b'"', None),
        (b'{"name":"\xff"}', None),
    ],
)
def test_nonsense_is_named_and_not_repeated(body: bytes, param: str | None) -> None:
    result = API.simulate_post("/things", body=body)
    assert problem(result) == (400, "invalid_request", param)
    assert "hush" not in result.text
    assert "thing are described at /docs" in result.text


def test_a_cause_is_one_sentence() -> None:
    result = API.simulate_post("/things", body=b'{"name":"hush"}')
    assert result.json["error"]["message"].startswith("name: it is taken. The fields")


def test_the_largest_body_that_is_read() -> None:
    body = b"{}".ljust(LARGEST_BODY)
    assert API.simulate_post("/things", body=body).status_code == 200
