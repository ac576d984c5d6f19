"""What admin calls are asked with: a JSON body as one of the shapes."""

from typing import TypeVar

from falcon.asgi import Request
from pydantic import BaseModel, ValidationError

from services.router.errors import Problem

LARGEST_BODY = 131_072

Asked = TypeVar("Asked", bound=BaseModel)


async def asked(req: Request, model: type[Asked], what: str) -> Asked:
    """`what` it describes: a provider, a proxy key. Raises a `Problem`, which never
    repeats what was sent."""
    body = await req.stream.read(LARGEST_BODY + 1)
    if len(body) > LARGEST_BODY:
        raise bad(None, f"the body has more than {LARGEST_BODY} bytes", what)
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        cause = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise bad(param, cause, what) from None


def bad(param: str | None, cause: str, what: str) -> Problem:
    """The answer to what makes no sense."""
    where = f"{param}: " if param else ""
    return Problem(
        400,
        "invalid_request",
        f"{where}{cause}. The fields of a {what} are described at /docs.",
        param=param,
    )
