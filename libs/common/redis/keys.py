"""All Redis key names. Routing keys share one hash tag, so that one function call may
use them on a Cluster. services/router/functions/catalogue.lua repeats the names and
has the full description."""

TAG = "{rpx}"


def has_tag(name: str) -> bool:
    """Whether a Cluster places a key of this name by the tag of the routing keys: what
    is between the first brace and the next closing one."""
    begin = name.find("{")
    return begin >= 0 and name[begin : name.find("}", begin) + 1] == TAG


def catalogue() -> str:
    """String: the catalogue's JSON document (`contracts.catalogue.Catalogue`)."""
    return f"{TAG}:catalogue"


def catalogue_version() -> str:
    """String: the version of that document, a content hash."""
    return f"{TAG}:catalogue:version"


def ranking(pool_id: str) -> str:
    """Sorted set: resource -> load, or from 1e12 up the Unix ms when an unavailable
    resource may be tried."""
    return f"{TAG}:ranking:{pool_id}"


def leases(resource_id: str) -> str:
    """Hash: gateway/request -> lease record (JSON), from which the reaper makes the
    request event. Its size is the number in flight."""
    return f"{TAG}:leases:{resource_id}"


def gateways() -> str:
    """Sorted set: gateway id -> Unix ms of its last heartbeat."""
    return f"{TAG}:gateways"


def reports() -> str:
    """Hash: gateway -> "ms|JSON": the ledger report of its last heartbeat."""
    return f"{TAG}:reports"


def impaired(gateway_id: str) -> str:
    """String: the impaired parts of a gateway, separated by commas; expires seconds
    after the last heartbeat that named some."""
    return f"{TAG}:impaired:{gateway_id}"


def health(resource_id: str) -> str:
    """Hash: state, until, failures, pauses, trial, last_error, counters."""
    return f"{TAG}:health:{resource_id}"


def pauses(digest: str) -> str:
    """String: JSON, resource -> cooldown of a model; while there is any."""
    return f"{TAG}:pauses:{digest}"


def limits(digest: str) -> str:
    """String: msgpack, account -> limits of a model, as told by upstreams; expires."""
    return f"{TAG}:limits:{digest}"


def queue(waits_for: str) -> str:
    """Sorted set: request that waits -> virtual start, for a class of requests."""
    return f"{TAG}:queue:{waits_for}"


def accounts() -> str:
    """Hash: resource -> the account that the upstream's headers named."""
    return f"{TAG}:accounts"


def session(digest: str) -> str:
    """String: the owner of a session; sliding expiry."""
    return f"{TAG}:session:{digest}"


def sessions() -> str:
    """Sorted set: session digest -> Unix ms when that key expires."""
    return f"{TAG}:sessions"


def bound(digest: str) -> str:
    """String: the owner of an upstream id; expires after a day."""
    return f"{TAG}:bound:{digest}"


def registry_changes() -> str:
    """String: a number that increases with each change of the provider registry in SQL,
    so that all routers notice."""
    return f"{TAG}:registry:changes"


def proxy_keys() -> str:
    """Hash: SHA-256 of a proxy key's secret -> its record (JSON)."""
    return f"{TAG}:proxy_keys"


def proxy_keys_version() -> str:
    """String: a number that increases with each change of that hash."""
    return f"{TAG}:proxy_keys:version"


def spent(key_id: str) -> str:
    """String (msgpack): the use of a proxy key in the last minute; expires."""
    return f"{TAG}:spent:{key_id}"


def born() -> str:
    """String: Unix ms of the first catalogue since Redis was empty."""
    return f"{TAG}:born"


def leader(role: str) -> str:
    """String: the holder of the leader lease of `role` (router, health)."""
    return f"{TAG}:leader:{role}"


def dead_letters(stream: str) -> str:
    """Stream: entries that could not be decoded, with their reason."""
    return f"{stream}:dead"


def payloads(stream: str) -> str:
    """Stream: captured bodies, for the telemetry stream of that name."""
    return f"{stream}:payloads"


def check_orders() -> str:
    """List: checks that the admin API requests of the health service."""
    return f"{TAG}:checks"


def check_answer(order: str) -> str:
    """List: the answer to one of them; expires after a minute."""
    return f"{TAG}:checks:{order}"
