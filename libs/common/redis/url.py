"""Parses PROXY_REDIS_URL: one server, a primary that Sentinels name, or some nodes of a
Redis Cluster. Pure.

redis-py has no URL for Sentinels. This is the form that other Python clients use:
`redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DATABASE]`, with
credentials and database of the primary. `rediss+sentinel://` uses TLS to both.
`redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]` is like it; the
credentials are those of all nodes."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

SERVERS = ("redis", "rediss", "unix")
SENTINELS = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
CLUSTERS = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
REDIS_PORT = 6379
SENTINEL_PORT = 26379

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = {
    **dict.fromkeys(FILES),
    "ssl_cert_reqs": ("required", "none"),
    "ssl_check_hostname": ("true", "false"),
}
_OPTIONS = {"db", "username", "password", *_TLS}
_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}
_UNENCODED = "has a user or password with a character that must be percent-encoded"


class BadRedisUrl(ValueError):
    """What is wrong; read after the name of the variable."""


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """`server` is a URL for redis-py. With Sentinels or a Cluster it has the address of
    the first one in place of the primary's, which is not known yet."""

    server: str
    files: tuple[str, ...]  # certificates and keys
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_login: tuple[tuple[str, str], ...] = ()  # username, password
    nodes: tuple[tuple[str, int], ...] = ()  # of a Cluster


def parse(url: str) -> RedisUrl:
    """Raises `BadRedisUrl`, which never contains a password."""
    scheme, _, rest = url.partition("://")
    if scheme not in (*SERVERS, *SENTINELS, *CLUSTERS):
        raise BadRedisUrl("is no Redis URL")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    authority, _, database = place.partition("/")
    login, _, host = authority.rpartition("@")
    if scheme != "unix" and any(character in login for character in "#[]"):
        raise BadRedisUrl(_UNENCODED)
    if scheme in SENTINELS:
        return _of_sentinels(SENTINELS[scheme], place, options)
    if scheme in CLUSTERS:
        return _of_cluster(CLUSTERS[scheme], place, options)
    _check_options(options, tls=scheme == "rediss")
    if scheme != "unix":
        _address(host)
        _check_database(database)
    return RedisUrl(url, _files(options))


def addresses(url: str) -> tuple[tuple[str, int], ...]:
    """The hosts and ports in the URL. Raises `BadRedisUrl`."""
    parsed = parse(url)
    if parsed.sentinels or parsed.nodes:
        return parsed.sentinels or parsed.nodes
    parts = urlsplit(parsed.server)
    if parts.scheme == "unix":
        return ()
    return ((parts.hostname or "localhost", parts.port or REDIS_PORT),)


def _of_sentinels(scheme: str, place: str, options: dict[str, str]) -> RedisUrl:
    authority, _, path = place.partition("/")
    service, _, database = path.partition("/")
    if not service:
        raise BadRedisUrl("names Sentinels, but not the service they watch")
    _check_database(database)
    login, at, hosts = authority.rpartition("@")
    sentinels = tuple(_address(host) for host in hosts.split(","))
    theirs = {_OF_SENTINELS[o]: options.pop(o) for o in _OF_SENTINELS if o in options}
    _check_options(options, tls=scheme == "rediss")
    first = hosts.partition(",")[0]
    query = f"?{urlencode(options)}" if options else ""
    return RedisUrl(
        f"{scheme}://{login}{at}{first}/{database or 0}{query}",
        _files(options),
        sentinels,
        service,
        tuple(theirs.items()),
    )


def _of_cluster(scheme: str, place: str, options: dict[str, str]) -> RedisUrl:
    authority, _, database = place.partition("/")
    if database not in ("", "0") or options.pop("db", "0") != "0":
        raise BadRedisUrl("names a database of a Redis Cluster, which has only 0")
    login, at, hosts = authority.rpartition("@")
    nodes = tuple(_address(host, REDIS_PORT) for host in hosts.split(","))
    _check_options(options, tls=scheme == "rediss")
    query = f"?{urlencode(options)}" if options else ""
    first = hosts.partition(",")[0]
    server = f"{scheme}://{login}{at}{first}/0{query}"
    return RedisUrl(server, _files(options), nodes=nodes)


def _address(text: str, default: int = SENTINEL_PORT) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:  # an invalid port or an unclosed bracket
        port = 0
    if port == 0 or "," in text:
        raise BadRedisUrl("has an address that is no HOST:PORT")
    return host or "localhost", port or default


def _check_database(text: str) -> None:
    if text and not text.isdecimal():
        raise BadRedisUrl("has a database that is no number")


def _check_options(options: dict[str, str], *, tls: bool) -> None:
    for name, value in options.items():
        if name not in _OPTIONS:
            # The end of a password with a question mark.
            if "@" in "".join((*options, *options.values())):
                raise BadRedisUrl(_UNENCODED)
            raise BadRedisUrl(f"has an option that is not known, {name[:40]!a}")
        if name in _TLS and not tls:
            raise BadRedisUrl(f"has {name}, which is for rediss:// only")
        allowed = _TLS.get(name)
        if allowed and value.lower() not in allowed:
            raise BadRedisUrl(f"has a {name} that is not one of {', '.join(allowed)}")


def _files(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(options[name] for name in FILES if name in options)
