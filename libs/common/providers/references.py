"""Rules for credential references: variables that may hold keys, and where those keys
may be sent. Pure.

A reference such as `env:NAME` makes a process read its own environment. Two rules apply
wherever one is stored or resolved: keys in OPENAI_* variables are sent to the
configured upstream only, and other variables must be allowed by the operator."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from libs.common.settings.credential_variables import DEFAULT_VARIABLES, OF_UPSTREAM
from libs.common.settings.http_proxies import DEFAULT_PORTS

VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]{0,127})(?:#([1-9][0-9]{0,3}))?")
# Secrets of this stack, databases and HTTP proxies, regardless of the allowed globs.
_NO_KEYS = re.compile(
    r"PROXY_.*|MORPH_.*|.*(?:DATABASE|REDIS)_URL|.*_PROXY", re.IGNORECASE
)
_ODD = re.compile(
    r"[%\\;]|/\.{0,2}(?:/|$)"
)  # escapes, parameters, empty or dot segments


def may_hold_keys(reference: str) -> bool:
    """Whether `reference` is `env:NAME` and NAME is not a secret of this stack."""
    found = VARIABLE.fullmatch(reference)
    return found is not None and _NO_KEYS.fullmatch(found[1]) is None


@dataclass(frozen=True, slots=True)
class References:
    """The rules. `upstream` is PROXY_UPSTREAM_BASE_URL; `variables` are globs."""

    upstream: str
    variables: Sequence[str] = (DEFAULT_VARIABLES,)

    def refusal(self, reference: str, base_url: str) -> str | None:
        """Return why the key must not be sent to `base_url`, or None."""
        found = VARIABLE.fullmatch(reference)
        if found is None or not may_hold_keys(reference):
            return "it does not refer to the key of a provider"
        name = found[1]
        if name.startswith(OF_UPSTREAM):
            if self.is_upstream(base_url):
                return None
            return f"{name} may be sent to PROXY_UPSTREAM_BASE_URL only"
        if any(fnmatchcase(name, glob) for glob in self.variables):
            return None
        return (
            f"{name} matches no glob in PROXY_CREDENTIAL_VARIABLES "
            f"({','.join(self.variables)})"
        )

    def is_upstream(self, base_url: str) -> bool:
        """Whether `base_url` is the configured upstream or a path below it."""
        try:
            ours, theirs = urlsplit(self.upstream), urlsplit(base_url)
            same = origin(ours) == origin(theirs)
        except ValueError:
            return False
        prefix = ours.path.rstrip("/")
        if not same or theirs.path.rstrip("/") == prefix:
            return same
        # A server may normalize an unusual path into one outside the prefix.
        return theirs.path.startswith(f"{prefix}/") and not _ODD.search(theirs.path)


def origin(url: SplitResult) -> tuple[str, str, int]:
    """Return scheme, host and port in normal form; the port is 0 if unknown. Raises
    `ValueError` for an invalid port."""
    port = url.port or DEFAULT_PORTS.get(url.scheme, 0)
    return url.scheme, plain(url.hostname or ""), port


def plain(host: str) -> str:
    """Normalize a host: lower case, without a trailing dot or a zone."""
    return host.lower().rstrip(".").partition("%")[0]
