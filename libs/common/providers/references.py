"""Which variables may hold the keys of providers, and where those keys may be sent.
Pure.

A reference such as `env:NAME` makes a process read its own environment, so two rules
hold wherever one is stored or resolved: OpenAI's variables belong to the configured
upstream, and others are for providers only if the operator says so."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from libs.common.settings.credential_variables import DEFAULT_VARIABLES, OF_UPSTREAM
from libs.common.settings.http_proxies import DEFAULT_PORTS

VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]{0,127})(?:#([1-9][0-9]{0,3}))?")
# Our own secrets and those of databases and proxies, whatever the operator lists.
_NO_KEYS = re.compile(
    r"PROXY_.*|MORPH_.*|.*(?:DATABASE|REDIS)_URL|.*_PROXY", re.IGNORECASE
)
_ODD = re.compile(
    r"[%\\;]|/\.{0,2}(?:/|$)"
)  # escapes, parameters, empty or dot segments


def may_hold_keys(reference: str) -> bool:
    """Is it `env:NAME` with a name that is not one of our own secrets?"""
    found = VARIABLE.fullmatch(reference)
    return found is not None and _NO_KEYS.fullmatch(found[1]) is None


@dataclass(frozen=True, slots=True)
class References:
    """The rules. `upstream` is PROXY_UPSTREAM_BASE_URL, `variables` are globs."""

    upstream: str
    variables: Sequence[str] = (DEFAULT_VARIABLES,)

    def refusal(self, reference: str, base_url: str) -> str | None:
        """Why the key may not be sent to `base_url`; None when it may."""
        found = VARIABLE.fullmatch(reference)
        if found is None or not may_hold_keys(reference):
            return "it is no reference to a provider's key"
        name = found[1]
        if name.startswith(OF_UPSTREAM):
            if self.is_upstream(base_url):
                return None
            return (
                f"{name} is for PROXY_UPSTREAM_BASE_URL only, which is another address"
            )
        if any(fnmatchcase(name, glob) for glob in self.variables):
            return None
        return (
            f"{name} matches nothing in PROXY_CREDENTIAL_VARIABLES "
            f"({','.join(self.variables)})"
        )

    def is_upstream(self, base_url: str) -> bool:
        """Is it the configured upstream, or a path below it?"""
        try:
            ours, theirs = urlsplit(self.upstream), urlsplit(base_url)
            same = origin(ours) == origin(theirs)
        except ValueError:
            return False
        prefix = ours.path.rstrip("/")
        if not same or theirs.path.rstrip("/") == prefix:
            return same
        # A server may resolve what is odd, and then it is another path.
        return theirs.path.startswith(f"{prefix}/") and not _ODD.search(theirs.path)


def origin(url: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port, with the spellings that are the same made equal; port 0
    when there is none. Raises `ValueError` for a port that cannot be one."""
    port = url.port or DEFAULT_PORTS.get(url.scheme, 0)
    return url.scheme, plain(url.hostname or ""), port


def plain(host: str) -> str:
    """A host without what changes nothing: case, the last dot, a zone."""
    return host.lower().rstrip(".").partition("%")[0]
