"""Who may use the admin API."""

import hmac

from falcon.asgi import Request, Response

from services.router.problems import Problem


class AdminToken:
    """Falcon middleware: everything under /admin needs the token, if there is
    one."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None

    @property
    def required(self) -> bool:
        return self._token is not None

    async def process_request(self, req: Request, _: Response) -> None:
        if self._token is None or not req.path.startswith("/admin"):
            return
        scheme, _space, given = (req.get_header("authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not _equal(given, self._token):
            raise Problem(
                401,
                "invalid_admin_token",
                "Send the admin token (PROXY_ADMIN_TOKEN) as Authorization: Bearer.",
            )


def _equal(given: str, token: bytes) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.strip().encode("utf-8", "replace"), token)
