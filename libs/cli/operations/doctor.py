"""`responses-proxy doctor`: checks the configuration and every connection.

Prints one line for each check, with a fix if it failed. Prints no secrets: no keys, and
no URL's user and password."""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg

from libs.cli.observe import look_at_redis
from libs.cli.operations.settings_check import (
    PORTS,
    address,
    check_ports,
    check_settings,
)
from libs.cli.operations.stored_providers import broken_providers
from libs.cli.plan import RedisSeen, without_password
from libs.cli.readiness_listener import readiness
from libs.common.admin_token import FILE, read_file
from libs.common.contracts.catalogue import Resource
from libs.common.errors import SettingError
from libs.common.runtime.tls import client_context, tls_cause
from libs.common.settings.base import CommonSettings, DatabaseSettings
from libs.common.settings.http_proxies import DEFAULT_PORTS, Egress
from libs.common.settings.resources import (
    resolve_credential,
    resources_from_environment,
)
from libs.common.settings.services import GatewaySettings
from libs.common.store.postgres.errors import cause_of

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the report. `fix` is empty if the check passed."""

    subject: str
    state: str
    fix: str = ""

    def __str__(self) -> str:
        mark = "FAIL" if self.fix else "ok"
        return f"{mark:<5} {self.subject}: {self.state}" + (
            f". {self.fix}" if self.fix else ""
        )


Check = Callable[[Mapping[str, str]], Iterator[Finding]]


def examine(environ: Mapping[str, str]) -> int:
    """Print every finding; returns 0 if no check failed, else 1."""
    failed = False
    checks = (_settings, _admin, _ports, _redis, _database, _providers, _upstreams)
    for check in checks:
        for finding in check(environ):
            failed = failed or bool(finding.fix)
            print(finding, flush=True)
        if failed and check is _settings:
            break  # the other checks would fail on the same value
    return 1 if failed else 0


def _settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        check_settings(environ)
    except SettingError as error:
        yield Finding("settings", "invalid", str(error))
        return
    yield Finding("settings", "valid")


def _admin(environ: Mapping[str, str]) -> Iterator[Finding]:
    settings = CommonSettings.read(environ)
    file = settings.data_dir / FILE
    if settings.open_admin:
        state = "OPEN to everyone who can reach it (PROXY_ALLOW_OPEN_ADMIN=true)"
        yield Finding("admin API", state)
    elif settings.admin_token is not None:
        yield Finding("admin API", "requires the token in PROXY_ADMIN_TOKEN")
    elif read_file(settings.data_dir) is None:
        yield Finding("admin API", "the first start will create a token")
    elif file.stat().st_mode & 0o077:
        fix = f"chmod 600 {file}; then replace it: responses-proxy admin-token --new"
        yield Finding("admin API", f"other users can read the token in {file}", fix)
    else:
        yield Finding("admin API", f"requires the token in {file}")
    hosts = GatewaySettings.read(environ).guard.hosts
    names = ", ".join(hosts) or "none (PROXY_ALLOWED_HOSTS is empty)"
    yield Finding("dashboard", f"host names beside loopback addresses: {names}")


def _ports(environ: Mapping[str, str]) -> Iterator[Finding]:
    settings = CommonSettings.read(environ)
    for service, (variable, field) in PORTS.items():
        subject = f"port {getattr(settings, field)} ({service})"
        try:
            check_ports(environ, service)
        except SettingError as error:
            if readiness(address(settings, service)) is None:
                yield Finding(subject, "in use by a service that is ready")
            else:
                yield Finding(subject, f"cannot be used for {variable}", str(error))
            continue
        yield Finding(subject, "free")


def _redis(environ: Mapping[str, str]) -> Iterator[Finding]:
    url = CommonSettings.read(environ).redis_url
    subject = f"redis {without_password(url)}"
    seen, cause = look_at_redis(url, TIMEOUT_SECONDS)
    if seen.usable:
        yield Finding(subject, f"answers and has functions; {seen.value}")
    elif not environ.get("PROXY_REDIS_URL"):
        yield Finding(subject, f"{seen.value}; `up` starts an embedded server instead")
    elif seen is RedisSeen.FOREIGN:
        yield Finding(
            subject,
            seen.value,
            "If it is not meant to be shared, select another database in "
            "PROXY_REDIS_URL",
        )
    else:
        state = f"{seen.value} ({cause})" if cause else seen.value
        yield Finding(subject, state, _redis_fix(seen, cause))


def _redis_fix(seen: RedisSeen, cause: str) -> str:
    if cause.startswith("TLS"):
        return (
            "Set the CA of the server's certificate in PROXY_REDIS_URL "
            "(?ssl_ca_certs=FILE), and use a host name that the certificate contains"
        )
    if seen is RedisSeen.LOCKED:
        return "Correct USER:PASSWORD in PROXY_REDIS_URL, or the user's ACL"
    return "Start Redis 7 or later, or correct PROXY_REDIS_URL"


def _database(environ: Mapping[str, str]) -> Iterator[Finding]:
    url = DatabaseSettings.read(environ).url
    subject = f"database {without_password(url)}"
    try:
        state = _ask_sqlite(url) if url.startswith("sqlite:") else _ask_postgres(url)
    except psycopg.Error as error:
        cause = cause_of(error)
        tls = any(sign in cause for sign in ("SSL", "ssl", "certificate"))
        yield Finding(
            subject, f"cannot be used ({cause})", _TLS_FIX if tls else _DATABASE_FIX
        )
        return
    except (sqlite3.Error, OSError) as error:
        kind = type(error).__name__
        yield Finding(subject, f"cannot be used ({kind})", _DATABASE_FIX)
        return
    yield Finding(subject, state)


_DATABASE_FIX = (
    "Check the host, user, password and database name in PROXY_DATABASE_URL, or the "
    "directory in PROXY_SQLITE_URL"
)
_TLS_FIX = (
    "Check the host, sslmode and sslrootcert (a file with the CA's certificate) in "
    "PROXY_DATABASE_URL"
)


def _ask_postgres(url: str) -> str:
    seconds = int(TIMEOUT_SECONDS)
    with psycopg.connect(url, connect_timeout=seconds) as connection:
        return f"answers, Postgres {connection.info.server_version // 10_000}"


def _ask_sqlite(url: str) -> str:
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        return "will be created"
    with sqlite3.connect(f"file:{path}?mode=rw", uri=True) as connection:
        connection.execute("SELECT 1")
    connection.close()
    return "can be opened"


def _providers(environ: Mapping[str, str]) -> Iterator[Finding]:
    settings = GatewaySettings.read(environ)
    private = "allowed" if settings.provider_private_addresses else "refused"
    yield Finding(
        "providers",
        f"keys may be in variables that match {settings.credential_variables}; "
        f"private addresses are {private}",
    )
    for id_, cause in broken_providers(environ, TIMEOUT_SECONDS):
        yield Finding(
            f"provider {id_}",
            f"gets no requests: {cause}",
            f"Correct or disable it with PATCH /admin/providers/{id_}",
        )


def _upstreams(environ: Mapping[str, str]) -> Iterator[Finding]:
    settings = GatewaySettings.read(environ)
    resources = resources_from_environment(environ, settings.upstream_base_url)
    if not resources:
        yield Finding("upstream", "no key is set; `up` starts a simulated upstream")
    context = client_context(settings.upstream_ca_file)
    for resource in resources:
        proxy = _proxy(resource, environ)
        with httpx.Client(
            timeout=TIMEOUT_SECONDS, verify=context, proxy=proxy, trust_env=False
        ) as client:
            yield _ask_upstream(client, resource, environ)


def _proxy(resource: Resource, environ: Mapping[str, str]) -> str | None:
    url = urlsplit(resource.base_url)
    port = url.port or DEFAULT_PORTS[url.scheme]
    proxy = Egress.read(environ).proxy_for(url.scheme, url.hostname or "", port)
    return proxy.url if proxy is not None else None


def _ask_upstream(
    client: httpx.Client, resource: Resource, environ: Mapping[str, str]
) -> Finding:
    variable = resource.credential.removeprefix("env:")
    subject = f"upstream {resource.base_url} with {variable} ({resource.id})"
    key = resolve_credential(resource.credential, environ)
    try:
        answer = client.get(
            f"{resource.base_url}/models", headers={"authorization": f"Bearer {key}"}
        )
    except httpx.HTTPError as error:
        cause = tls_cause(error) or type(error).__name__
        return Finding(
            subject,
            f"does not answer ({cause})",
            "Check PROXY_UPSTREAM_BASE_URL, PROXY_UPSTREAM_CA_FILE, HTTPS_PROXY and "
            "the network",
        )
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        state = f"rejects the key (status {answer.status_code})"
        return Finding(subject, state, f"Set {variable} to a valid key")
    if answer.is_error:
        return Finding(
            subject,
            f"answers GET /models with status {answer.status_code}",
            "Check PROXY_UPSTREAM_BASE_URL; OpenAI's ends in /v1",
        )
    return Finding(subject, "answers and accepts the key")


if __name__ == "__main__":
    sys.exit(examine(os.environ))
