"""What differs between the services that offer this API: the path, the header with the
key, the headers and errors of answers. Facts: docs/upstream-api.md, Azure OpenAI."""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

from libs.simulator.api import errors
from libs.simulator.api.errors import ApiError
from libs.simulator.wire import Json

_REGION = "East US 2"


class Dialect(Protocol):
    """One service."""

    prefix: str  # of all paths

    def key(self, headers: Mapping[str, str], *, upgrade: bool = False) -> str:
        """The key of a request or an upgrade; empty without one."""

    def check_model(self, model: str | None) -> None:
        """Raises the error of a model that requests cannot name."""

    def error(self, problem: ApiError) -> Json:
        """The content of `error` in an answer or event."""

    def headers(self, usual: dict[str, str], status: int) -> dict[str, str]:
        """The headers of an answer, of those that OpenAI would send."""


def bearer(headers: Mapping[str, str]) -> str:
    """The bearer token, or an empty string."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class OpenAi:
    """api.openai.com."""

    prefix = "/v1"

    def key(self, headers: Mapping[str, str], *, upgrade: bool = False) -> str:
        return bearer(headers)

    def check_model(self, model: str | None) -> None:
        """Any name will do."""

    def error(self, problem: ApiError) -> Json:
        return problem.error()

    def headers(self, usual: dict[str, str], status: int) -> dict[str, str]:
        return usual


class Azure:
    """The v1 API of an Azure OpenAI resource. Stricter than the service, which also
    takes a key as a bearer token: so a key in the wrong header does not go unnoticed.
    Errors of the front door have a status as their code; those of the API itself are
    OpenAI's."""

    prefix = "/openai/v1"

    def __init__(self, deployments: Sequence[str]) -> None:
        self._deployments = frozenset(deployments)

    def key(self, headers: Mapping[str, str], *, upgrade: bool = False) -> str:
        return bearer(headers) if upgrade else headers.get("api-key", "")

    def check_model(self, model: str | None) -> None:
        if model is not None and model not in self._deployments:
            raise errors.model_not_found(model)

    def error(self, problem: ApiError) -> Json:
        told = _BY_CODE.get(problem.code or "")
        if problem.status == 401:
            told = "401", _DENIED
        elif problem.status == 404 and problem.message.startswith("Invalid URL"):
            told = "404", "Resource not found"
        if told is None:
            return problem.error()
        code, message = told
        return {"code": code, "message": message}

    def headers(self, usual: dict[str, str], status: int) -> dict[str, str]:
        kept = {n: v for n, v in usual.items() if not n.startswith(_NOT_OF_AZURE)}
        kept["apim-request-id"] = str(uuid.uuid4())
        kept["x-ms-region"] = _REGION
        for name in _RESETS & kept.keys():
            kept[name] = str(_seconds(kept[name]))
        if status == 429 and "retry-after" in kept:
            kept["retry-after-ms"] = str(int(kept["retry-after"]) * 1000)
        return kept


_DENIED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to "
    "provide a valid key for an active subscription and use a correct regional API "
    "endpoint for your resource."
)
_LIMITED = (
    f"Your requests in {_REGION} have exceeded the token rate limit for your current "
    "AIServices S0 pricing tier. Please retry after 1 second. To increase your default "
    "rate limit, visit: https://aka.ms/oai/quotaincrease."
)
_NOT_DEPLOYED = (
    "The API deployment for this resource does not exist. If you created the "
    "deployment within the last 5 minutes, please wait a moment and try again."
)
_BY_CODE = {
    "rate_limit_exceeded": ("429", _LIMITED),
    "model_not_found": ("DeploymentNotFound", _NOT_DEPLOYED),
}
_NOT_OF_AZURE = ("openai-", "set-cookie", "cf-", "alt-svc", "server")
_RESETS = {"x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"}


def _seconds(duration: str) -> int:
    """`2s` or `120ms` in whole seconds, rounded up."""
    if duration.endswith("ms"):
        return math.ceil(int(duration[:-2]) / 1000)
    return int(duration.removesuffix("s"))
