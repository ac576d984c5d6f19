"""Where an attempt goes. Pure."""

from libs.common.contracts.catalogue import Resource
from libs.common.headers import Header
from libs.common.providers.key_echoes import NO_KEY, SentKey
from libs.common.routing.accounts import unnamed
from services.gateway.upstream.origin import Origin


class Target:
    """A resource with what a request to it needs. `path` is the base URL's, without a
    trailing slash. `authorization` is the line of the head that has the key, empty when
    this gateway cannot get the key; `upgrade_keys` are the headers of an upgrade.
    `sent` is the key, to be masked in answers."""

    __slots__ = (
        "account_id", "authorization", "host", "id", "origin", "path", "resource",
        "sent", "unnamed", "upgrade_keys"
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - of all fields
        self,
        resource: Resource,
        origin: Origin,
        host: bytes,
        path: bytes,
        authorization: bytes,
        upgrade_keys: tuple[Header, ...] = (),
        sent: SentKey = NO_KEY,
    ) -> None:
        self.resource, self.origin = resource, origin
        self.host, self.path = host, path
        self.authorization, self.upgrade_keys = authorization, upgrade_keys
        self.sent = sent
        # Of the resource. Fields of its model take five times as long to read.
        self.id: str = resource.id
        self.account_id: str = resource.account_id
        self.unnamed = unnamed(resource)  # is its account unknown?
