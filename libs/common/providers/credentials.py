"""From what the catalogue says of a key to the key itself: every process that talks
to upstreams finds it in its own environment, or opens it.

The rules of registration are checked here again: the catalogue comes from SQL, where
rows may be older than the rules, or written by hand."""

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
    """This process's access to keys."""

    def __init__(
        self, environ: Mapping[str, str], sealer: Sealer, rules: ProviderRules
    ) -> None:
        self._environ = environ
        self._sealer = sealer
        self._rules = rules
        self._missed: dict[str, str] = {}  # resource -> the credential that was said

    def resolve(self, credential: str, base_url: str) -> str:
        """The key that is to be sent to `base_url`. Raises `SettingError`,
        `Unsealable`, or `Forbidden` when it may not go there; without any of it."""
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
        """None when it cannot be had here, which is said once."""
        try:
            key = self.resolve(resource.credential, resource.base_url)
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
