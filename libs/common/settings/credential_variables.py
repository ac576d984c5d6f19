"""Globs of the variables that may hold keys of registered providers. Pure."""

import re

OF_UPSTREAM = "OPENAI_"
DEFAULT_VARIABLES = "PROVIDER_*"
_GLOB = re.compile(r"[A-Za-z0-9_*?]{1,128}")


class BadGlob(ValueError):
    """A glob is invalid. The message continues the name of the setting."""


def parse_globs(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list such as `PROVIDER_*,ACME_KEY`. Raises `BadGlob`."""
    globs = tuple(part.strip() for part in text.split(",") if part.strip())
    for glob in globs:
        if not _GLOB.fullmatch(glob):
            raise BadGlob(
                f"contains {glob[:40]!a}, which is not a variable name or glob"
            )
        if not re.search(r"[A-Za-z0-9]", glob):
            raise BadGlob(f"contains {glob[:40]!a}, which matches every variable")
        if glob.startswith(OF_UPSTREAM):
            raise BadGlob(
                f"contains {glob[:40]!a}, but keys of {OF_UPSTREAM}* variables are "
                "sent to PROXY_UPSTREAM_BASE_URL only"
            )
    return globs
