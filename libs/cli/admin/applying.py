"""Makes changes one by one, and tells each as soon as it is made."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from libs.cli.admin.credentials import API_KEY
from libs.cli.admin.difference import Action, Change
from libs.cli.admin.kinds import Fields, Kind
from libs.cli.text import plain
from libs.common.errors import ProxyError

SECRET = "secret"  # noqa: S105 the field of a new key
INDENT = " " * 8


class Api(Protocol):
    """The part of the client used here. Raises `ProxyError`."""

    def create(self, kind: Kind, fields: Fields) -> dict[str, Any]: ...

    def change(self, kind: Kind, id_: str, fields: Fields) -> dict[str, Any]: ...

    def remove(self, kind: Kind, id_: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Step:
    """A change, and the key of an upstream that it sends."""

    change: Change
    api_key: str | None = field(default=None, repr=False)


def apply(
    api: Api, steps: Sequence[Step], tell: Callable[[Change, str | None], None]
) -> None:
    """Make all changes. `tell` gets each one that was made, with the secret of a new
    proxy key. Raises `ProxyError`, which says how far it came."""
    for made, step in enumerate(steps):
        try:
            _make(api, step, tell)
        except ProxyError as error:
            raise ProxyError(
                f"{step.change.subject}: {error} ({made} of {len(steps)} changes are "
                "made; the same command continues)"
            ) from None


def _make(api: Api, step: Step, tell: Callable[[Change, str | None], None]) -> None:
    change = step.change
    fields = dict(change.fields)
    if step.api_key is not None:
        fields[API_KEY] = step.api_key
    if change.action is Action.CREATE:
        row = api.create(change.kind, fields)
        tell(change, row.get(SECRET))  # before anything else can fail
        if change.later:
            api.change(change.kind, row[change.kind.id], change.later)
        return
    id_ = change.id or ""
    if change.action is Action.CHANGE:
        api.change(change.kind, id_, fields)
    else:
        api.remove(change.kind, id_)
    tell(change, None)


def lines(change: Change, secret: str | None = None) -> Iterator[str]:
    """A change for people. Upstream keys are never part of it."""
    yield plain(f"{change.action:<6}  {change.subject}")
    for name, (before, after) in _fields(change).items():
        old = f"{_json(before)} -> " if change.action is Action.CHANGE else ""
        yield plain(f"{INDENT}{name}: {old}{_json(after)}")
    if change.key_of is not None:
        yield f"{INDENT}{API_KEY}: sent"
    if secret is not None:
        yield f"{INDENT}{SECRET}: {secret}  (shown only now)"


def as_json(change: Change, secret: str | None = None) -> dict[str, Any]:
    """A change for programs."""
    told: dict[str, Any] = {
        "action": str(change.action),
        "kind": change.kind.name,
        "name": change.label,
        "id": change.id,
        "fields": {
            name: {"before": before, "after": after}
            for name, (before, after) in _fields(change).items()
        },
        "sends_api_key": change.key_of is not None,
    }
    return told if secret is None else {**told, SECRET: secret}


def _fields(change: Change) -> Mapping[str, tuple[Any, Any]]:
    """Before and after, by field."""
    return {
        name: (change.before.get(name), after)
        for name, after in {**change.fields, **change.later}.items()
        if name != change.kind.label
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
