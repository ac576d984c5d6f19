"""Redis keys that only the routing functions use, for tests that look behind them."""

from libs.common.redis.keys import DEFAULT

TAG = DEFAULT.tag


def bound(digest: str) -> str:
    """String: the owner of an id; expires."""
    return f"{TAG}:bound:{digest}"


def gateways() -> str:
    """Sorted set: gateway id -> Unix ms of its last heartbeat."""
    return f"{TAG}:gateways"


def leases(resource_id: str) -> str:
    """Hash: gateway/request -> lease record (JSON), from which the reaper makes the
    request event. Its size is the number in flight."""
    return f"{TAG}:leases:{resource_id}"


def limits(digest: str) -> str:
    """String: msgpack, account -> limits of a model, as told by upstreams; expires."""
    return f"{TAG}:limits:{digest}"


def queue(waits_for: str) -> str:
    """Sorted set: request that waits -> virtual start, for a class of requests."""
    return f"{TAG}:queue:{waits_for}"


def ranking(pool_id: str) -> str:
    """Sorted set: resource -> load, or from 1e12 up the Unix ms when an unavailable
    resource may be tried."""
    return f"{TAG}:ranking:{pool_id}"


def session(digest: str) -> str:
    """String: the owner of a session; sliding expiry."""
    return f"{TAG}:session:{digest}"


def spent(key_id: str) -> str:
    """String (msgpack): the use of a proxy key in the last minute; expires."""
    return f"{TAG}:spent:{key_id}"
