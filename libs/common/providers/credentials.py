"""Resolves the credentials of the catalogue to keys. Each process that connects to
upstreams reads a key from its own environment, or decrypts it.

The rules of registration are checked again here, because rows in SQL may be older than
the rules, or edited by hand."""

from collections.abc import Mapping

import structlog

from libs.common.contracts.catalogue import Resource
from libs.common.errors import ProxyError
from libs.common.providers.destinations import Forbidden
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.settings.resources import resolve_credential

log = structlog.get_logger()

SEALED = "sealed:"


class Credentials:
    """Resolves credentials in this process."""

    def __init__(
        self, environ: Mapping[str, str], sealer: Sealer, rules: ProviderRules
    ) -> None:
        self._environ = environ
        self._sealer = sealer
        self._rules = rules
        self._missed: dict[str, str] = {}  # resource -> credential last logged

    def resolve(self, credential: str, base_url: str) -> str:
        """Return the key to send to `base_url`. Raises `Forbidden` if it must not be
        sent there, `SettingError` or `Unsealable` if it cannot be read. No error
        message contains the key."""
        refusal = self._rules.destinations.refusal(base_url)
        if refusal is not None:
            raise Forbidden(f"the provider's address {refusal}")
        if credential.startswith(SEALED):
            return self._sealer.open(credential.removeprefix(SEALED))
        refusal = self._rules.references.refusal(credential, base_url)
        if refusal is not None:
            raise Forbidden(f"the credential_ref must not be sent there: {refusal}")
        return resolve_credential(credential, self._environ)

    def key_of(self, resource: Resource) -> str | None:
        """Return the key, or None after logging once that it cannot be resolved."""
        try:
            key = self.resolve(resource.credential, resource.base_url)
        except ProxyError as error:
            if self._missed.get(resource.id) != resource.credential:
                self._missed[resource.id] = resource.credential
                log.error(
                    "cannot resolve the key of a resource",
                    action="credential_missing",
                    resource=resource.id,
                    cause=str(error),
                )
            return None
        self._missed.pop(resource.id, None)
        return key
