"""Every field of a declared one, and its form for comparisons. Pure.

A field that the file leaves out has its default, so what is removed from the file is
removed from the proxy. Exceptions, which stay as they are: a provider's credential and
its `base_url`."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from libs.cli.admin.credentials import REFERENCE, without_sources
from libs.cli.admin.declared import ALWAYS, SINGLE, price_name
from libs.cli.admin.kinds import MODELS, PRICES, PROVIDERS, Fields, Kind
from libs.cli.admin.schema import (
    NETWORKS,
    KindSchema,
    Schema,
    choices,
    instant,
    network,
)
from libs.common.providers.azure import AZURE
from libs.common.providers.key_headers import API_KEY, BEARER
from libs.common.settings.upstreams import checked_url

BASE_URL = "base_url"


def wanted(kind: Kind, schema: KindSchema, fields: Fields) -> dict[str, Any]:
    """The fields to compare and to send, as the API takes them."""
    given = without_sources(fields)
    defaults = {
        name: schema.default(name)
        for name in without_sources(schema.fields)
        if name != kind.label
    }
    if kind is PROVIDERS:
        return _of_provider({**defaults, **given}, given)
    if kind is MODELS:
        return _of_model({**defaults, **given})
    if kind is PRICES:
        return {**given, "prices": sorted(given["prices"], key=price_name)}
    return {**defaults, **given}


def _of_provider(fields: dict[str, Any], given: Fields) -> dict[str, Any]:
    for name in (REFERENCE, BASE_URL):
        if given.get(name) is None:
            del fields[name]
    if BASE_URL in fields:
        fields[BASE_URL] = checked_url(BASE_URL, fields[BASE_URL])
    fields["name"] = fields["name"] or fields["id"]
    if fields["auth_type"] is None:
        azure = fields["provider_type"] == AZURE
        fields["auth_type"] = API_KEY if azure else BEARER
    return fields


def _of_model(fields: dict[str, Any]) -> dict[str, Any]:
    single = {name: fields.pop(name) for name in SINGLE}
    targets = fields["targets"] or [single]
    fields["targets"] = sorted(targets, key=lambda each: each.get("priority", 0))
    return fields


def as_declared(kind: Kind, row: Fields) -> Fields:
    """A row of the API with values as a file has them."""
    if kind is not PRICES:
        return row
    prices = [
        {
            **price,
            "service_tier": price["service_tier"] or None,
            "valid_from": price["valid_from"][: len(ALWAYS)],
        }
        for price in row["prices"]
    ]
    # Not in the order of the API, which is that of the database's language.
    return {**row, "prices": sorted(prices, key=price_name)}


def compared(fields: Fields, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """The fields in one form: equal forms mean the same to the API."""
    return {name: _form(fields[name], schemas.get(name, {}), name) for name in fields}


def _form(value: Any, schema: Schema, name: str) -> Any:
    if isinstance(value, dict):
        return _form_of_mapping(value, schema)
    if isinstance(value, list):
        items = _choice(schema, "array").get("items", {})
        return [_form(each, items, name) for each in value]
    if isinstance(value, str):
        if name == NETWORKS:
            return network(value) or value
        if _choice(schema, "string").get("format") == "date-time":
            time = instant(value)
            return time.astimezone(UTC).isoformat() if time else value
    return value


def _form_of_mapping(value: dict[str, Any], schema: Schema) -> dict[str, Any] | None:
    """Without fields that have their default; None if all have."""
    parts = _choice(schema, "object").get("properties", {})
    found = {
        name: _form(each, parts.get(name, {}), name)
        for name, each in value.items()
        if each != parts.get(name, {}).get("default")
    }
    return found or None


def _choice(schema: Schema, kind: str) -> Schema:
    return next((each for each in choices(schema) if each.get("type") == kind), {})
