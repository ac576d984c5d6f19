"""Serves the dashboard's files from the package."""

from pathlib import Path

from services.router.api.fixed import Fixed

DASHBOARD = Path(__file__).with_name("dashboard")
# The page loads nothing from other hosts, and no page may frame it.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# Files that are not served by their path in the folder.
_OTHER_PATHS = {"index.html": "/", "icon.svg": "/favicon.ico"}


def _files() -> dict[str, tuple[str, str]]:
    names = sorted(
        path.relative_to(DASHBOARD).as_posix()
        for path in DASHBOARD.rglob("*.*")
        if path.suffix in _MEDIA
    )
    return {
        _OTHER_PATHS.get(name, f"/dashboard/{name}"): (name, _MEDIA[Path(name).suffix])
        for name in names
    }


FILES = _files()  # name in the folder and content type, by path


def page(name: str, content_type: str) -> Fixed:
    """One file."""
    return Fixed((DASHBOARD / name).read_bytes(), content_type, CSP)
