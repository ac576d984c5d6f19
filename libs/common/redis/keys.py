"""The names of Redis keys and functions that Python uses. Those of a stack have its
namespace, so that several stacks can share a Redis. Its keys share one hash tag, so
that one function call may use them on a Cluster.
services/router/functions/catalogue.lua describes all of them."""

import re
from dataclasses import dataclass
from typing import Final

DEFAULT_NAMESPACE: Final = "rpx"
# Functions of Redis have names of letters, digits and underscores.
NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,30}")
STREAM: Final = "telemetry:events"


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one stack. Processes of a stack have the same namespace
    (PROXY_REDIS_NAMESPACE)."""

    namespace: str = DEFAULT_NAMESPACE

    @property
    def tag(self) -> str:
        """What decides the slot of a key on a Cluster."""
        return f"{{{self.namespace}}}"

    def has_tag(self, name: str) -> bool:
        """Whether a Cluster places a key of this name by the tag: what is between the
        first brace and the next closing one."""
        begin = name.find("{")
        return begin >= 0 and name[begin : name.find("}", begin) + 1] == self.tag

    @property
    def is_default(self) -> bool:
        return self.namespace == DEFAULT_NAMESPACE

    @property
    def tagged_stream(self) -> str:
        """The name of the telemetry stream on a Cluster, and beside other stacks."""
        return f"{self.tag}:{STREAM}"

    @property
    def guard(self) -> str:
        """A key that never exists (cluster/layout.py)."""
        return f"{self.tag}:-"

    @property
    def list_library(self) -> tuple[str, ...]:
        """The command that lists the stack's function library."""
        return "FUNCTION", "LIST", "LIBRARYNAME", self.namespace

    def function(self, name: str) -> str:
        """The name in Redis of one of the library's functions."""
        return f"{self.namespace}_{name}"

    def catalogue(self) -> str:
        """String: the catalogue's JSON document (`contracts.catalogue.Catalogue`)."""
        return f"{self.tag}:catalogue"

    def catalogue_version(self) -> str:
        """String: the version of that document, a content hash."""
        return f"{self.tag}:catalogue:version"

    def reports(self) -> str:
        """Hash: gateway -> "ms|JSON": the ledger report of its last heartbeat."""
        return f"{self.tag}:reports"

    def impaired(self, gateway_id: str) -> str:
        """String: the impaired parts of a gateway, separated by commas; expires seconds
        after the last heartbeat that named some."""
        return f"{self.tag}:impaired:{gateway_id}"

    def accounts(self) -> str:
        """Hash: resource -> the account that the upstream's headers named."""
        return f"{self.tag}:accounts"

    def sessions(self) -> str:
        """Sorted set: session digest -> Unix ms when that key expires."""
        return f"{self.tag}:sessions"

    def instance(self) -> str:
        """String: a random name, by which the routers know this Redis."""
        return f"{self.tag}:instance"

    def proxy_keys(self) -> str:
        """Hash: SHA-256 of a proxy key's secret -> its record (JSON)."""
        return f"{self.tag}:proxy_keys"

    def proxy_keys_version(self) -> str:
        """String: a number that increases with each change of that hash."""
        return f"{self.tag}:proxy_keys:version"

    def leader(self, role: str) -> str:
        """String: the holder of the leader lease of `role` (router, health)."""
        return f"{self.tag}:leader:{role}"

    def check_orders(self) -> str:
        """List: checks that the admin API requests of the health service."""
        return f"{self.tag}:checks"

    def check_answer(self, order: str) -> str:
        """List: the answer to one of them; expires after a minute."""
        return f"{self.tag}:checks:{order}"


DEFAULT: Final = Keys()
"""The names of a stack that has a Redis of its own."""


def dead_letters(stream: str) -> str:
    """Stream: entries that could not be decoded, with their reason."""
    return f"{stream}:dead"


def payloads(stream: str) -> str:
    """Stream: captured bodies, for the telemetry stream of that name."""
    return f"{stream}:payloads"
