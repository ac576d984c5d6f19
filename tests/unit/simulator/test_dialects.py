"""What the simulated upstream says as OpenAI and as Azure."""

import pytest

from libs.simulator.api import errors
from libs.simulator.api.errors import ApiError
from libs.simulator.dialects import Azure, OpenAi

AZURE = Azure(("gpt-5.5",))
KEY = {"api-key": "k", "authorization": "Bearer b"}


def test_where_the_key_is() -> None:
    assert [OpenAi().key(KEY), OpenAi().key(KEY, upgrade=True)] == ["b", "b"]
    assert [AZURE.key(KEY), AZURE.key(KEY, upgrade=True)] == ["k", "b"]
    assert AZURE.key({"authorization": "Bearer b"}) == ""


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (errors.no_key(), "401"),
        (errors.wrong_key("secret-key"), "401"),
        (errors.unknown_route("GET", "/openai/v1/x"), "404"),
        (errors.model_not_found("m"), "DeploymentNotFound"),
        (errors.by_status(429, None, None, model="m", account="a"), "429"),
    ],
)
def test_errors_of_the_front_door_are_azures(problem: ApiError, code: str) -> None:
    told = AZURE.error(problem)
    assert (told["code"], set(told)) == (code, {"code", "message"})
    assert "secret" not in told["message"]


def test_errors_of_the_api_are_openais() -> None:
    problem = errors.previous_response_not_found("resp_1")
    assert AZURE.error(problem) == OpenAi().error(problem) == problem.error()


def test_only_deployments_can_be_named() -> None:
    for model in ("gpt-5.5", None):
        AZURE.check_model(model)
    OpenAi().check_model("any")
    with pytest.raises(ApiError) as refused:
        AZURE.check_model("gpt-6-sol")
    assert refused.value.status == 404


def test_headers() -> None:
    usual = {
        "openai-organization": "o", "set-cookie": "c", "cf-ray": "r", "server": "s",
        "x-request-id": "req", "retry-after": "3",
        "x-ratelimit-reset-tokens": "1200ms", "x-ratelimit-reset-requests": "0s",
    }  # fmt: skip
    told = AZURE.headers(usual, 429)
    assert told.pop("apim-request-id")
    assert told == {
        "x-ms-region": "East US 2", "x-request-id": "req", "retry-after": "3",
        "retry-after-ms": "3000", "x-ratelimit-reset-tokens": "2",
        "x-ratelimit-reset-requests": "0",
    }  # fmt: skip
    assert "retry-after-ms" not in AZURE.headers(usual, 200)
    assert OpenAi().headers(usual, 429) == usual
