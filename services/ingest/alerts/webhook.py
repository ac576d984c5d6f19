"""Builds what sends alerts to PROXY_ALERT_WEBHOOK_URL. The address follows the rules
for those of providers."""

import os
import secrets
import socket

import httpx
import stamina.instrumentation

from libs.common.providers.http_transport import EgressTransport
from libs.common.providers.resolver import CheckedResolver
from libs.common.providers.rules import ProviderRules
from libs.common.runtime.tls import client_context
from libs.common.settings.http_proxies import Egress
from libs.common.settings.services import IngestSettings
from libs.common.store.interface import Fetch
from services.ingest.alerts.lease import DeliveryLease
from services.ingest.alerts.outbox import AlertDelivery
from services.ingest.alerts.sender import Sender
from services.ingest.alerts.signature import signing_key


def deliveries(settings: IngestSettings, fetch: Fetch) -> tuple[AlertDelivery, ...]:
    """One, if alerts are sent."""
    url, secret = settings.alert_webhook_url, settings.alert_webhook_secret
    if url is None or secret is None:
        return ()
    stamina.instrumentation.set_on_retry_hooks(())  # the outbox logs and counts
    client = httpx.AsyncClient(
        follow_redirects=False,  # they could lead anywhere
        transport=EgressTransport(
            Egress.read(os.environ),
            client_context(settings.upstream_ca_file),
            CheckedResolver(ProviderRules.read(os.environ).destinations),
        ),
    )
    holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    lease = DeliveryLease(fetch, holder)
    key = signing_key(secret.get_secret_value())
    return (AlertDelivery(fetch, Sender(client, url, key), lease),)
