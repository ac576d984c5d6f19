"""Checks of upstreams, registered providers and browsers' access. None of them stops
a start."""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import httpx

from libs.cli.checks.finding import Context, Finding
from libs.cli.operations.stored_providers import broken_providers
from libs.common.contracts.catalogue import Resource
from libs.common.providers.key_headers import key_header
from libs.common.runtime.tls import client_context, tls_cause
from libs.common.settings.http_proxies import DEFAULT_PORTS, Egress
from libs.common.settings.resources import (
    resolve_credential,
    resources_from_environment,
)
from libs.common.settings.services import GatewaySettings


def browsers(context: Context) -> Iterator[Finding]:
    hosts = GatewaySettings.read(context.environ).guard.hosts
    names = ", ".join(hosts) or "none (PROXY_ALLOWED_HOSTS is empty)"
    yield Finding("dashboard", f"host names beside loopback addresses: {names}")


def providers(context: Context) -> Iterator[Finding]:
    settings = GatewaySettings.read(context.environ)
    private = "allowed" if settings.provider_private_addresses else "refused"
    yield Finding(
        "providers",
        f"keys may be in variables that match {settings.credential_variables}; "
        f"private addresses are {private}",
    )
    for id_, cause in broken_providers(context.environ, context.patience_s):
        yield Finding.failed(
            f"provider {id_}",
            f"gets no requests: {cause}",
            f"Correct or disable it with PATCH /admin/providers/{id_}",
        )


def upstreams(context: Context) -> Iterator[Finding]:
    environ = context.environ
    settings = GatewaySettings.read(environ)
    resources = resources_from_environment(environ, settings.upstream_base_url)
    if not resources:
        yield Finding("upstream", "no key is set; `up` starts a simulated upstream")
    tls = client_context(settings.upstream_ca_file)
    for resource in resources:
        proxy = _proxy(resource, environ)
        with httpx.Client(
            timeout=context.patience_s, verify=tls, proxy=proxy, trust_env=False
        ) as client:
            yield _ask(client, resource, environ)


def _proxy(resource: Resource, environ: Mapping[str, str]) -> str | None:
    url = urlsplit(resource.base_url)
    port = url.port or DEFAULT_PORTS[url.scheme]
    proxy = Egress.read(environ).proxy_for(url.scheme, url.hostname or "", port)
    return proxy.url if proxy is not None else None


def _ask(
    client: httpx.Client, resource: Resource, environ: Mapping[str, str]
) -> Finding:
    variable = resource.credential.removeprefix("env:")
    subject = f"upstream {resource.base_url} with {variable} ({resource.id})"
    key = resolve_credential(resource.credential, environ)
    try:
        header = key_header(resource.auth_type, key)
        answer = client.get(f"{resource.base_url}/models", headers=[header])
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        cause = tls_cause(error) or type(error).__name__
        return Finding.failed(
            subject,
            f"does not answer ({cause})",
            "Check PROXY_UPSTREAM_BASE_URL, PROXY_UPSTREAM_CA_FILE, HTTPS_PROXY and "
            "the network",
        )
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        state = f"rejects the key (status {answer.status_code})"
        return Finding.failed(subject, state, f"Set {variable} to a valid key")
    if answer.is_error:
        return Finding.failed(
            subject,
            f"answers GET /models with status {answer.status_code}",
            "Check PROXY_UPSTREAM_BASE_URL; OpenAI's ends in /v1",
        )
    return Finding(subject, "answers and accepts the key")
