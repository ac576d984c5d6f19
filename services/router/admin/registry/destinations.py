"""May a provider have this address, and may its keys be sent there? Checked before a
provider is stored or tested; the gateway and the health service check again when they
connect."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from libs.common.providers.destinations import Forbidden
from libs.common.providers.references import origin
from libs.common.providers.resolver import CheckedResolver, Resolver
from libs.common.providers.rules import ProviderRules
from libs.common.settings.http_proxies import Egress
from services.router.errors import Problem

# A name that does not resolve here may resolve on the gateways' hosts.
LOOKUP_S = 2.0


class DestinationCheck:
    """Rejects addresses and references that the rules do not allow."""

    def __init__(
        self, rules: ProviderRules, egress: Egress, resolver: Resolver | None = None
    ) -> None:
        self._rules = rules
        self._egress = egress
        self._resolver = CheckedResolver(rules.destinations, resolver)

    async def refuse(self, base_url: str, reference: str | None) -> None:
        """Raises a `Problem` if nothing may be sent to `base_url`, or not the key that
        `reference` names."""
        try:
            await self._check_address(base_url)
        except Forbidden as refusal:
            raise Problem(
                400,
                "address_not_allowed",
                f"base_url: {refusal}. Use an address that providers may have (see "
                "Providers in docs/api.md).",
                param="base_url",
            ) from None
        if reference is None:
            return
        cause = self._rules.references.refusal(reference, base_url)
        if cause is not None:
            raise Problem(
                400,
                "credential_not_allowed",
                f"credential_ref: {cause}. Put the provider's key into a variable that "
                "PROXY_CREDENTIAL_VARIABLES allows, for the router, the gateways and "
                "the health service.",
                param="credential_ref",
            )

    async def _check_address(self, base_url: str) -> None:
        refusal = self._rules.destinations.refusal(base_url)
        if refusal is not None:
            raise Forbidden(f"the provider's address {refusal}")
        scheme, host, port = origin(urlsplit(base_url))
        if self._egress.proxy_for(scheme, host, port) is not None:
            return  # the HTTP proxy resolves names
        with suppress(OSError, TimeoutError, UnicodeError):
            async with asyncio.timeout(LOOKUP_S):
                await self._resolver.find(scheme, host, port)
