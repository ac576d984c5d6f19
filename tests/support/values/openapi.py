"""The router's OpenAPI document, as far as the command line reads it."""

from functools import cache
from typing import Any

from libs.cli.admin.credentials import with_sources
from libs.cli.admin.kinds import ORDER
from libs.cli.admin.schema import KindSchema, kind_schema
from services.router.admin.keys import OneProxyKey, ProxyKeys
from services.router.admin.prices import Prices, PricesOfModel
from services.router.admin.registry.models import Models, OneModel
from services.router.admin.registry.providers import OneProvider, Providers
from services.router.admin.teams import OneTeam, Teams
from services.router.api.document import document

_CLASSES: dict[str, type] = {
    "/admin/keys": ProxyKeys,
    "/admin/keys/{key_id}": OneProxyKey,
    "/admin/models": Models,
    "/admin/models/{alias}": OneModel,
    "/admin/prices": Prices,
    "/admin/prices/{model:path}": PricesOfModel,
    "/admin/providers": Providers,
    "/admin/providers/{provider_id}": OneProvider,
    "/admin/teams": Teams,
    "/admin/teams/{team_id}": OneTeam,
}


@cache
def openapi() -> dict[str, Any]:
    """Only declarations are read, so the resources need no parts."""
    return document({path: object.__new__(made) for path, made in _CLASSES.items()})


@cache
def schemas() -> dict[str, KindSchema]:
    """Of every kind, with the sources of keys."""
    return {k.name: with_sources(k, kind_schema(openapi(), k)) for k in ORDER}
