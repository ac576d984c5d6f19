"""Decides which browser requests are served, so that a foreign web page cannot use the
proxy on behalf of its visitor. Pure.

A page can make a browser send requests to any address, loopback included, and DNS
rebinding lets it give this machine a host name of its choice. The origin of a request
can be trusted: scripts cannot set `Host`, `Origin` or any `Sec-` header."""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from libs.common.headers import Header

# Set by the gateway on requests that it has checked; see `Guard.admin`.
CHECKED = "sec-proxy-checked"
# The client's address, on the same requests.
CLIENT_ADDRESS = "sec-proxy-client"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Methods of /admin that change something; others are answered 405.
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Paths that links on other sites may open. Only these pages request the others.
PAGES = frozenset({"/", "/docs"})
_OWN_SITE = frozenset(
    {"same-origin", "none"}
)  # values of Sec-Fetch-Site; none: typed by the user
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]*))?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s,]+)")
_WORD = 100  # characters of a received value that a message quotes


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error response to a refused request."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Sender:
    """The origin of a request, according to its headers."""

    method: str
    host: str | None = None
    origin: str | None = None
    site: str | None = None  # Sec-Fetch-Site
    mode: str | None = None  # Sec-Fetch-Mode
    dest: str | None = None  # Sec-Fetch-Dest
    language: str | None = None  # Accept-Language
    content_type: str | None = None

    @property
    def browser(self) -> bool:
        """Whether a browser sent it. Browsers send `Origin` with every method except
        GET and HEAD. Over plain HTTP, only `Accept-Language` identifies those two. Node
        sends it too, but with a Sec-Fetch-Mode, which browsers omit there."""
        if self.origin is not None or self.site is not None:
            return True
        return self.language is not None and self.mode is None


_FIELDS = {
    b"host": "host",
    b"origin": "origin",
    b"sec-fetch-site": "site",
    b"sec-fetch-mode": "mode",
    b"sec-fetch-dest": "dest",
    b"accept-language": "language",
    b"content-type": "content_type",
}


def sender(method: str, headers: Iterable[Header]) -> Sender:
    """Read the origin of a request. The first header of each name counts."""
    found: dict[str, Any] = {}
    for name, value in headers:
        wanted = _FIELDS.get(name)
        if wanted is not None:
            found.setdefault(wanted, value.decode("latin-1").strip())
    return Sender(method, **found)


@dataclass(frozen=True)
class Guard:
    """Applies the operator's rules. `bound` is the listening address; `hosts` and
    `origins` are PROXY_ALLOWED_HOSTS and PROXY_ALLOWED_ORIGINS; `is_local` says whether
    an address belongs to this machine."""

    bound: str = "127.0.0.1"
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    is_local: Callable[[str], bool] = field(default=lambda _: False)

    def admin(self, path: str, asked: Sender) -> Refusal | None:
        """Check a request outside /v1 and the probes; return the refusal, if any."""
        host = asked.host
        if not self.answers_to(host):
            return _unknown_host(host)
        foreign = asked.site is not None and asked.site not in _OWN_SITE
        if foreign and not _opens_a_page(path, asked):
            return _foreign_admin(asked.origin)
        if asked.origin is not None and not _same_origin(asked.origin, host):
            return _foreign_admin(asked.origin)
        if not _is_json(asked):
            return _NOT_JSON
        return None

    def api(self, asked: Sender) -> Refusal | None:
        """Check a request below /v1; return the refusal, if any. Clients other than
        browsers may use any host name, because load balancers choose their own."""
        if not asked.browser or self.lists(asked.origin):
            return None
        if asked.origin is not None and not _same_origin(asked.origin, asked.host):
            return _foreign_api(asked.origin)
        if asked.site is not None and asked.site not in _OWN_SITE:
            return _foreign_api(asked.origin)
        return None if self.answers_to(asked.host) else _unknown_host(asked.host)

    def lists(self, origin: str | None) -> bool:
        """Whether PROXY_ALLOWED_ORIGINS contains `origin`."""
        return origin is not None and origin in self.origins

    def answers_to(self, host: str | None) -> bool:
        """Whether `host` is a name of this proxy. Foreign names may resolve to it
        too."""
        name = host_of(host or "")
        if name is None:
            return False
        if name in {"localhost", self.bound.lower()} and not _is_wildcard(name):
            return True
        address = _address(name)
        if address is None:
            return any(_matches(name, allowed) for allowed in self.hosts)
        if address.is_loopback or name in self.hosts:
            return True
        return _is_wildcard(self.bound) and self.is_local(name)


def host_of(authority: str) -> str | None:
    """Return the name or address in `NAME[:PORT]`, in lower case and without brackets,
    or None if it is invalid."""
    if _address(authority) is not None:
        return authority.lower()
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return None
    return found[1].strip("[]").lower().removesuffix(".") or None


def origin_of(text: str) -> str | None:
    """Normalize an origin to `SCHEME://HOST[:PORT]`, as browsers send it. Return None
    if `text` is not an origin."""
    found = _ORIGIN.fullmatch(text.strip().lower().removesuffix("/"))
    if found is None:
        return None
    scheme, authority = found.groups()
    return f"{scheme}://{authority.removesuffix(':' + _port_of(scheme))}"


def _port_of(scheme: str) -> str:
    return _DEFAULT_PORTS.get(scheme, "none")


def _matches(name: str, allowed: str) -> bool:
    if allowed.startswith("*."):
        return name.endswith(allowed[1:])
    return name == allowed


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _is_wildcard(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_unspecified


def _same_origin(origin: str, host: str | None) -> bool:
    """Whether a page of `origin` was served by `host`."""
    found = _ORIGIN.fullmatch(origin)
    if found is None or host is None:
        return False
    scheme, authority = found.groups()
    default = _port_of(scheme)
    return _split(authority, default) == _split(host, default) is not None


def _split(authority: str, default: str) -> tuple[str, str] | None:
    found = _AUTHORITY.fullmatch(authority)
    return found and (found[1].lower(), found[2] or default)


def _opens_a_page(path: str, asked: Sender) -> bool:
    navigates = asked.mode == "navigate" and asked.dest in {None, "document"}
    return navigates and asked.method == "GET" and path in PAGES


def _is_json(asked: Sender) -> bool:
    """Whether the content type is JSON, which forms and simple requests of scripts
    cannot send. They cannot send DELETE either, so it may have no body."""
    if asked.method not in _WRITES:
        return True
    if asked.content_type is None:
        return asked.method == "DELETE"
    media = asked.content_type.partition(";")[0].strip().lower()
    return media == "application/json"


# Refusals --------------------------------------------------------------------


def _unknown_host(host: str | None) -> Refusal:
    return Refusal(
        403,
        "host_not_allowed",
        f"This proxy does not serve browsers or /admin under the host name "
        f"{(host or '')[:_WORD]!r}. Use a loopback address, or add the name to "
        "PROXY_ALLOWED_HOSTS.",
    )


def _foreign_admin(origin: str | None) -> Refusal:
    return Refusal(
        403,
        "origin_not_allowed",
        f"{_page(origin)} of another origin sent this request. Only pages of this "
        "proxy may use /admin; programs must not send an Origin header.",
    )


def _foreign_api(origin: str | None) -> Refusal:
    return Refusal(
        403,
        "origin_not_allowed",
        f"{_page(origin)} of another origin sent this request. The operator lists "
        "the origins whose pages may use /v1 in PROXY_ALLOWED_ORIGINS.",
    )


def _page(origin: str | None) -> str:
    return "A page" if origin is None else f"A page ({origin[:_WORD]!r})"


_NOT_JSON = Refusal(
    415,
    "unsupported_media_type",
    "Send the header Content-Type: application/json, even without a body "
    "(curl --json does).",
)


# CORS --------------------------------------------------------------------------

# Response headers that SDKs read, beyond those that every page may read.
EXPOSED = (
    "x-proxy-request-id, x-proxy-resource-id, x-proxy-reason, x-proxy-attempts, "
    "x-proxy-cost-usd, "
    "x-request-id, retry-after, retry-after-ms, x-should-retry, openai-processing-ms"
)
PREFLIGHT_AGE_S = 600


def cors_lines(origin: bytes) -> bytes:
    """Header lines of every response to a listed origin."""
    return (
        b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n"
        b"vary: Origin\r\n"
    ) % (origin, EXPOSED.encode())


def preflight_headers(asked: bytes | None) -> list[Header]:
    """Headers of the response to a preflight request of a listed origin. `asked` is its
    Access-Control-Request-Headers."""
    return [
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", asked or b"authorization, content-type"),
        (b"access-control-max-age", b"%d" % PREFLIGHT_AGE_S),
        (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]
