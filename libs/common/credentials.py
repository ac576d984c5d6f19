"""From what the catalogue says of a key to the key itself: every process that talks
to upstreams finds it in its own environment, or opens it."""

from collections.abc import Mapping

import structlog

from libs.common.contracts import Resource
from libs.common.errors import ProxyError
from libs.common.resources import resolve_credential
from libs.common.sealing import Sealer

log = structlog.get_logger()

SEALED = "sealed:"


class Credentials:
    """This process's access to keys."""

    def __init__(self, environ: Mapping[str, str], sealer: Sealer) -> None:
        self._environ = environ
        self._sealer = sealer
        self._missed: dict[str, str] = {}  # resource -> the credential that was said

    def resolve(self, credential: str) -> str:
        """The key. Raises `SettingError` or `Unsealable`, without any of it."""
        if credential.startswith(SEALED):
            return self._sealer.open(credential.removeprefix(SEALED))
        return resolve_credential(credential, self._environ)

    def key_of(self, resource: Resource) -> str | None:
        """None when it cannot be had here, which is said once."""
        try:
            key = self.resolve(resource.credential)
        except ProxyError as error:
            if self._missed.get(resource.id) != resource.credential:
                self._missed[resource.id] = resource.credential
                log.error(
                    "no key for resource",
                    action="credential_missing",
                    resource=resource.id,
                    cause=str(error),
                )
            return None
        self._missed.pop(resource.id, None)
        return key
