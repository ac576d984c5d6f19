"""The names of Redis keys that Python uses. Routing keys share one hash tag, so that
one function call may use them on a Cluster. services/router/functions/catalogue.lua
describes all of them."""

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


def reports() -> str:
    """Hash: gateway -> "ms|JSON": the ledger report of its last heartbeat."""
    return f"{TAG}:reports"


def impaired(gateway_id: str) -> str:
    """String: the impaired parts of a gateway, separated by commas; expires seconds
    after the last heartbeat that named some."""
    return f"{TAG}:impaired:{gateway_id}"


def accounts() -> str:
    """Hash: resource -> the account that the upstream's headers named."""
    return f"{TAG}:accounts"


def sessions() -> str:
    """Sorted set: session digest -> Unix ms when that key expires."""
    return f"{TAG}:sessions"


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
