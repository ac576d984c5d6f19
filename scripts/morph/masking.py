"""Hides secrets in everything that is printed."""

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from libs.cli.plan import without_password
from libs.common.settings import http_proxies, resources
from libs.common.settings.base import Settings
from libs.common.settings.services import SERVICES, UpSettings

MASK = "********"
SHORTEST = 4  # a shorter secret is part of ordinary words
_DATABASES = ("PROXY_DATABASE_URL", "SERVICE_DATABASE_URL", "DATABASE_URL")
_PROXIES = {name for names in http_proxies.VARIABLES.values() for name in names}
_URLS = {"PROXY_REDIS_URL", *_DATABASES, *_PROXIES}
_LISTS = {resources.WEIGHTS, resources.POOLS, resources.POOL, resources.ACCOUNTS}


def _plain() -> set[str]:
    """Settings whose models do not keep their values out of `repr`."""
    models: tuple[type[Settings], ...] = (*SERVICES.values(), UpSettings)
    return {
        field.alias or name
        for model in models
        for name, field in model.model_fields.items()
        if field.repr and field.annotation != SecretStr | None
    }


_PLAIN = _plain() | _LISTS | {"NO_PROXY", "no_proxy"}


def shown(variable: str, value: str) -> str:
    """The value as the plan prints it. What is not known to be harmless is masked."""
    if variable in _URLS:
        return without_password(value)
    if variable in _PLAIN:
        return " ".join(value.split())
    return MASK


def secrets_of(environment: Mapping[str, str]) -> Iterator[str]:
    """Every text of `environment` that must not be printed."""
    for variable, value in environment.items():
        if variable in _URLS:
            yield from _of_url(value)
        elif variable not in _PLAIN:
            yield from (value, *(part.strip() for part in value.split(",")))


def _of_url(url: str) -> Iterator[str]:
    yield url
    yield url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return
    yield from (password, unquote(password))


class Mask:
    """Replaces secrets in text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: a secret may contain another one.
        long_enough = {each for each in secrets if len(each) >= SHORTEST}
        self._secrets = sorted(long_enough, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text
