"""Error responses with the service's messages, codes and statuses."""

from collections.abc import Mapping

from libs.simulator.wire import Json

_KEYS_PAGE = "https://platform.openai.com/account/api-keys"


class ApiError(Exception):
    """An error response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param

    def error(self) -> Json:
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }

    def envelope(self) -> Json:
        return {"error": self.error()}


def no_key() -> ApiError:
    return ApiError(401, "Missing bearer or basic authentication in header")


def wrong_key(key: str) -> ApiError:
    shown = key if len(key) < 12 else f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}"
    return ApiError(
        401,
        f"Incorrect API key provided: {shown}. "
        f"You can find your API key at {_KEYS_PAGE}.",
        code="invalid_api_key",
    )


def wrong_selector(what: str) -> ApiError:
    """The OpenAI-Organization or OpenAI-Project header does not match the key."""
    return ApiError(
        401,
        f"OpenAI-{what.capitalize()} header should match {what} for API key",
        code=f"mismatched_{what}",
    )


def bad_json() -> ApiError:
    return ApiError(
        400,
        "We could not parse the JSON body of your request. (HINT: This likely means "
        "you aren't using your HTTP library correctly. The OpenAI API expects a JSON "
        "payload, but what was sent was not valid JSON.)",
    )


def too_large() -> ApiError:
    return ApiError(413, "The request body is too large.")


def unknown_route(method: str, path: str) -> ApiError:
    return ApiError(404, f"Invalid URL ({method} {path})")


def missing(param: str) -> ApiError:
    return ApiError(
        400,
        f"Missing required parameter: '{param}'.",
        code="missing_required_parameter",
        param=param,
    )


def invalid(param: str, why: str) -> ApiError:
    return ApiError(
        400, f"Invalid '{param}': {why}.", code="invalid_value", param=param
    )


def previous_response_not_found(response_id: str) -> ApiError:
    return ApiError(
        400,
        f"Previous response with id '{response_id}' not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def response_not_found(response_id: str) -> ApiError:
    return ApiError(404, f"Response with id '{response_id}' not found.")


def conversation_not_found(conversation_id: str) -> ApiError:
    return ApiError(404, f"Conversation with id '{conversation_id}' not found.")


def conversation_locked(conversation_id: str) -> ApiError:
    return ApiError(
        400,
        f"Another process is currently operating on conversation "
        f"'{conversation_id}'. Please retry in a few seconds.",
        code="conversation_locked",
        param="conversation",
    )


def item_not_found(item_id: str) -> ApiError:
    return ApiError(
        404,
        f"Item with id '{item_id}' not found. Items are not persisted when `store` "
        "is set to false. Try again with `store` set to true, or remove this item "
        "from your input.",
        param="input",
    )


def foreign_seal(item_id: str) -> ApiError:
    return _unverified(
        item_id,
        "Encrypted content organization_id did not match the target organization.",
    )


def broken_seal(item_id: str) -> ApiError:
    return _unverified(item_id, "Encrypted content could not be decrypted or parsed.")


def _unverified(item_id: str, reason: str) -> ApiError:
    return ApiError(
        400,
        f"The encrypted content for item {item_id} could not be verified. "
        f"Reason: {reason}",
        code="invalid_encrypted_content",
    )


def file_not_found(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id}", param="id")


_KINDS = {"vs": "Vector store", "cntr": "Container", "batch": "Batch"}


def object_not_found(object_id: str) -> ApiError:
    """A vector store, container or batch does not exist."""
    kind = _KINDS.get(object_id.partition("_")[0], "Object")
    return ApiError(404, f"{kind} with id '{object_id}' not found.")


def model_not_found(model: str) -> ApiError:
    return ApiError(
        404,
        f"The model '{model}' does not exist or you do not have access to it.",
        code="model_not_found",
        param="model",
    )


def no_cancel() -> ApiError:
    return ApiError(400, "Cannot cancel a synchronous response.")


# Type, code and message per status, for scripted faults without a body of their own.
# `{model}` and `{account}` are filled in.
_BY_STATUS: Mapping[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is invalid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: ("invalid_request_error", None, "Not found."),
    408: ("invalid_request_error", None, "The request timed out."),
    409: ("invalid_request_error", None, "The resource was modified. Try again."),
    422: ("invalid_request_error", None, "The request could not be processed."),
    429: (
        "tokens",
        "rate_limit_exceeded",
        (
            "Rate limit reached for {model} in organization {account} on tokens per "
            "min (TPM): Limit 30000, Used 29500, Requested 1750. Please try again in "
            "2.5s. Visit https://platform.openai.com/account/rate-limits to learn more."
        ),
    ),
    503: (
        "service_unavailable_error",
        "server_is_overloaded",
        "Our servers are currently overloaded. Please try again later.",
    ),
}
_SERVER_ERROR = (
    "server_error",
    "server_error",
    "The server had an error while processing your request. Sorry about that!",
)
_BY_CODE: Mapping[str, tuple[str, str]] = {
    "insufficient_quota": (
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "slow_down": (
        "service_unavailable_error",
        "Please slow down: reduce your request rate and try again later.",
    ),
}


def by_status(
    status: int, code: str | None, message: str | None, *, model: str, account: str
) -> ApiError:
    """The usual error of a status; code and message can be overridden."""
    kind, usual_code, text = _BY_STATUS.get(status, _SERVER_ERROR)
    if code and code in _BY_CODE:
        kind, text = _BY_CODE[code]
    text = text.format(model=model, account=account)
    return ApiError(status, message or text, kind=kind, code=code or usual_code)
