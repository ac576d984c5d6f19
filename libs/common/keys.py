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


def load(pool_id: str) -> str:
    """Sorted set: available resource -> (in flight + 1) / weight."""
    return f"{TAG}:load:{pool_id}"


def cooling(pool_id: str) -> str:
    """Sorted set: unavailable resource -> Unix ms when it may be tried again."""
    return f"{TAG}:cooling:{pool_id}"


def leases(resource_id: str) -> str:
    """Sorted set: request id -> Unix ms of its acquire. Its size is in flight."""
    return f"{TAG}:leases:{resource_id}"


def gateway(gateway_id: str) -> str:
    """Hash: request id -> lease record, what the reaper needs to tell of it."""
    return f"{TAG}:gateway:{gateway_id}"


def gateways() -> str:
    """Sorted set: gateway id -> Unix ms of its last heartbeat."""
    return f"{TAG}:gateways"


def health(resource_id: str) -> str:
    """Hash: state, cooldown_until_ms, failures, last_error, counters."""
    return f"{TAG}:health:{resource_id}"


def session(digest: str) -> str:
    """String: the resource a session is bound to; sliding expiry."""
    return f"{TAG}:session:{digest}"


def sessions() -> str:
    """Sorted set: session digest -> Unix ms when its binding ends."""
    return f"{TAG}:sessions"


def bound(digest: str) -> str:
    """String: the resource whose account minted an upstream id; a day."""
    return f"{TAG}:bound:{digest}"


def leader(role: str) -> str:
    """String: who holds the lease of `role` (router, health)."""
    return f"{TAG}:leader:{role}"


def dead_letters(stream: str) -> str:
    """Stream: entries that could not be decoded, with their reason."""
    return f"{stream}:dead"


def check_orders() -> str:
    """List: checks asked for by the admin API; the health service takes them."""
    return f"{TAG}:checks"


def check_answer(order: str) -> str:
    """List: the answer to one such order, for a minute."""
    return f"{TAG}:checks:{order}"
