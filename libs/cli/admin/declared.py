"""What a file declares, checked against the API's schemas before anything is changed.
Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.cli.admin.credentials import API_KEY, source_problems
from libs.cli.admin.kinds import (
    MODELS,
    ORDER,
    PRICES,
    PROVIDERS,
    Fields,
    Kind,
    nearest,
)
from libs.cli.admin.schema import KindSchema, Path, Problem, problems
from libs.common.providers.references import may_hold_keys
from libs.common.settings.messages import SettingErrorCarrier
from libs.common.settings.upstreams import checked_url

SINGLE = ("provider_id", "upstream_id")
ALWAYS = "1970-01-01"  # the day of a price that names none


@dataclass(frozen=True)
class Declared:
    """One of a kind, with its fields as they are in the file."""

    label: str
    fields: Fields
    path: Path


Declaration = Mapping[str, Sequence[Declared]]  # by section; absent: not in the file


def declared(
    document: Any, schemas: Mapping[str, KindSchema]
) -> tuple[Declaration, list[Problem]]:
    """What is declared, and what is wrong with it. With problems the first part is not
    complete."""
    names = [kind.name for kind in ORDER]
    if not isinstance(document, dict):
        return {}, [Problem((), f"is not a mapping of {', '.join(names)}")]
    found = [
        Problem((name,), f"unknown section{nearest(name, names)}")
        for name in document
        if name not in names
    ]
    sections: dict[str, Sequence[Declared]] = {}
    for kind in ORDER:
        if kind.name in document:
            items, wrong = _section(kind, document[kind.name], schemas[kind.name])
            sections[kind.name] = items
            found += wrong
    return sections, found


def _section(
    kind: Kind, listed: Any, schema: KindSchema
) -> tuple[list[Declared], list[Problem]]:
    if not isinstance(listed, list):
        return [], [Problem((kind.name,), "is not a list; write [] for none")]
    items: list[Declared] = []
    found: list[Problem] = []
    labels: set[str] = set()
    for place, fields in enumerate(listed):
        path: Path = (kind.name, place)
        wrong = list(item_problems(kind, fields, schema, path))
        label = fields.get(kind.label) if isinstance(fields, dict) else None
        if not wrong and not label:
            wrong = [Problem(path, f"{kind.label} is missing")]
        if not wrong and label in labels:
            wrong = [Problem((*path, kind.label), f"{label!r} is declared twice")]
        if wrong:
            found += wrong
        else:
            labels.add(str(label))
            items.append(Declared(str(label), fields, path))
    return items, found


def item_problems(
    kind: Kind, fields: Any, schema: KindSchema, path: Path = ()
) -> Iterator[Problem]:
    """What is wrong with one. `schema` has the sources of keys."""
    key = (*path, API_KEY)
    generic = (p for p in problems(fields, schema.whole, path) if p.path != key)
    found = list(generic)
    if isinstance(fields, dict):
        found += source_problems(kind, fields, path)
    if not found and kind is MODELS:
        found += _of_model(fields, path)
    if not found and kind is PROVIDERS:
        found += _of_provider(fields, path)
    if not found and kind is PRICES:
        found += _of_prices(fields, path)
    yield from found


def _of_model(fields: Fields, path: Path) -> Iterator[Problem]:
    targets, single = fields.get("targets"), [fields.get(name) for name in SINGLE]
    if (targets is None) == (single == [None, None]) or (
        targets is None and None in single
    ):
        yield Problem(path, "give either provider_id and upstream_id, or targets")
    names = [tuple(target[name] for name in SINGLE) for target in targets or ()]
    for place, name in enumerate(names):
        if name in names[:place]:
            yield Problem((*path, "targets", place), "the same target is there twice")


def _of_prices(fields: Fields, path: Path) -> Iterator[Problem]:
    names = [price_name(price) for price in fields["prices"]]
    for place, name in enumerate(names):
        if name in names[:place]:
            text = "a price of the same tier and day is there twice"
            yield Problem((*path, "prices", place), text)


def price_name(price: Fields) -> tuple[str, str]:
    """What distinguishes the prices of a model: the tier, and the day from which on."""
    return price.get("service_tier") or "", price.get("valid_from", ALWAYS)


def _of_provider(fields: Fields, path: Path) -> Iterator[Problem]:
    reference, url = fields.get("credential_ref"), fields.get("base_url")
    if reference is not None and not may_hold_keys(reference):
        yield Problem(
            (*path, "credential_ref"),
            "is not env:NAME, a variable of the gateways that may hold keys",
        )
    if url is not None:
        try:
            checked_url("base_url", url)
        except SettingErrorCarrier as error:
            yield Problem((*path, "base_url"), str(error).removeprefix("base_url: "))
