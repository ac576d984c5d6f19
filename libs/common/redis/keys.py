"""Every Redis key name. All routing keys share one hash tag, so that one
function call may touch them on a Cluster. `library.lua` repeats the names:
its head is the map, `tests/integration` holds the two together."""

TAG = "{rpx}"


def catalogue() -> str:
    """String: the catalogue's JSON document (`contracts.Catalogue`)."""
    return f"{TAG}:catalogue"


def catalogue_version() -> str:
    """String: the version of that document; a content hash."""
    return f"{TAG}:catalogue:version"


def ranking(pool_id: str) -> str:
    """Sorted set: resource -> its load, or from 1e12 up the Unix ms when an
    unavailable one may be tried."""
    return f"{TAG}:ranking:{pool_id}"


def leases(resource_id: str) -> str:
    """Hash: gateway/request -> lease record, what the reaper needs to tell of it.
    Its size is in flight."""
    return f"{TAG}:leases:{resource_id}"


def gateways() -> str:
    """Sorted set: gateway id -> Unix ms of its last heartbeat."""
    return f"{TAG}:gateways"


def reports() -> str:
    """Hash: gateway -> "ms|JSON": its books as of its last heartbeat."""
    return f"{TAG}:reports"


def health(resource_id: str) -> str:
    """Hash: state, until, failures, pauses, trial, last_error, counters."""
    return f"{TAG}:health:{resource_id}"


def pauses(digest: str) -> str:
    """String: JSON of a model's pauses by resource, while there are any."""
    return f"{TAG}:pauses:{digest}"


def accounts() -> str:
    """Hash: resource -> the account that the upstream's headers named."""
    return f"{TAG}:accounts"


def session(digest: str) -> str:
    """String: the resource a session is bound to; sliding expiry."""
    return f"{TAG}:session:{digest}"


def sessions() -> str:
    """Sorted set: session digest -> Unix ms when its binding ends."""
    return f"{TAG}:sessions"


def bound(digest: str) -> str:
    """String: the resource whose account minted an upstream id; a day."""
    return f"{TAG}:bound:{digest}"


def registry_changes() -> str:
    """String: counts changes of the provider registry in SQL, so that every router
    hears of them."""
    return f"{TAG}:registry:changes"


def proxy_keys() -> str:
    """Hash: SHA-256 of a proxy key's secret -> what its holder may do (JSON)."""
    return f"{TAG}:proxy_keys"


def proxy_keys_version() -> str:
    """String: a number that grows with each change of that table."""
    return f"{TAG}:proxy_keys:version"


def spent(key_id: str) -> str:
    """String (msgpack): what a proxy key used in the last minute; so long."""
    return f"{TAG}:spent:{key_id}"


def born() -> str:
    """String: Unix ms of the first catalogue since Redis was empty."""
    return f"{TAG}:born"


def leader(role: str) -> str:
    """String: who holds the lease of `role` (router, health)."""
    return f"{TAG}:leader:{role}"


def dead_letters(stream: str) -> str:
    """Stream: entries that could not be decoded, with their reason."""
    return f"{stream}:dead"


def payloads(stream: str) -> str:
    """Stream: captured bodies, beside the telemetry stream of that name."""
    return f"{stream}:payloads"


def check_orders() -> str:
    """List: checks asked for by the admin API; the health service takes them."""
    return f"{TAG}:checks"


def check_answer(order: str) -> str:
    """List: the answer to one such order, for a minute."""
    return f"{TAG}:checks:{order}"
