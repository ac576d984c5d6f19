"""Serves the dashboard's files from the package."""

from pathlib import Path

from falcon.asgi import Request, Response

DASHBOARD = Path(__file__).with_name("dashboard")
# The page loads nothing from other hosts, and no page may frame it.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/dashboard/registry.js": ("registry.js", "text/javascript; charset=utf-8"),
    "/dashboard/style.css": ("style.css", "text/css; charset=utf-8"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}


class Page:
    """One file."""

    def __init__(self, name: str, content_type: str) -> None:
        self._body = (DASHBOARD / name).read_bytes()
        self._content_type = content_type

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.content_type = self._content_type
        resp.data = self._body
        resp.set_header("content-security-policy", CSP)
        resp.cache_control = ["no-cache"]
