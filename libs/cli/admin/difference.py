"""The difference between what a file declares and what the proxy has. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from libs.cli.admin.credentials import (
    ADVICE,
    REFERENCE,
    has_key_source,
    without_sources,
)
from libs.cli.admin.declared import Declaration, Declared
from libs.cli.admin.kinds import (
    KEYS,
    MODELS,
    ORDER,
    PROVIDERS,
    TEAMS,
    Fields,
    Kind,
    is_managed,
    nearest,
)
from libs.cli.admin.schema import KindSchema, Problem
from libs.cli.admin.wanted import BASE_URL, as_declared, compared, wanted

Rows = Sequence[Fields]


class Action(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    REVOKE = "revoke"


@dataclass(frozen=True)
class Change:
    """One step. `fields` are sent; `later` with a second call, because a creation does
    not take them. `before` has the values that are replaced. `key_of`: the declared
    provider whose key is read and sent. `id` is None for a creation."""

    action: Action
    kind: Kind
    label: str
    id: str | None = None
    fields: Fields = field(default_factory=dict)
    later: Fields = field(default_factory=dict)
    before: Fields = field(default_factory=dict)
    key_of: Declared | None = None

    @property
    def subject(self) -> str:
        return f"{self.kind.one} {self.label or self.id}"


@dataclass(frozen=True)
class Scope:
    """`prune`: what a section does not name is removed. `send_keys`: the API shows no
    key, so it is sent only with a new provider or address, unless asked for."""

    prune: bool = False
    send_keys: bool = False


class Difference:
    """Of a declaration and the rows of the API by kind."""

    def __init__(
        self,
        declaration: Declaration,
        rows: Mapping[str, Rows],
        schemas: Mapping[str, KindSchema],
        scope: Scope,
    ) -> None:
        self._declaration = declaration
        self._rows = {
            kind.name: [
                as_declared(kind, row) for row in rows[kind.name] if is_managed(row)
            ]
            for kind in ORDER
        }
        self._schemas = schemas
        self._scope = scope

    def problems(self) -> list[Problem]:
        """Why the file cannot be applied to what the proxy has."""
        return [
            *self._ambiguous_keys(),
            *self._providers_without_credential(),
            *self._unknown_providers(),
            *self._in_use(PROVIDERS, MODELS, _providers_of),
            *self._in_use(TEAMS, KEYS, lambda row: {row.get("team_id")}),
        ]

    def changes(self) -> list[Change]:
        """The steps in their order; none if there is nothing to do."""
        steps: list[Change] = []
        for kind in ORDER:
            for item in self._declaration.get(kind.name, ()):
                step = self._step(kind, item)
                steps += [step] if step is not None else []
        for kind in reversed(ORDER):
            action = Action(kind.removal)
            steps += [
                Change(action, kind, row[kind.label], row[kind.id])
                for row in self._removed(kind)
            ]
        return steps

    def _row(self, kind: Kind, label: str) -> Fields | None:
        found = (row for row in self._rows[kind.name] if row[kind.label] == label)
        return next(found, None)

    def _removed(self, kind: Kind) -> list[Fields]:
        items = self._declaration.get(kind.name)
        if items is None or not self._scope.prune:
            return []
        kept = {item.label for item in items}
        return [row for row in self._rows[kind.name] if row[kind.label] not in kept]

    def _step(self, kind: Kind, item: Declared) -> Change | None:
        schema = self._schemas[kind.name]
        row = self._row(kind, item.label)
        if row is None:
            return _creation(kind, item, schema)
        after = {**wanted(kind, schema, item.fields), **self._of_team(kind, item)}
        names = [name for name in after if name in row]
        old = compared({name: row[name] for name in names}, schema.fields)
        new = compared({name: after[name] for name in names}, schema.fields)
        changed = [name for name in names if old[name] != new[name]]
        sends = self._sends_key(kind, item, row, changed)
        if BASE_URL in changed and REFERENCE in after and REFERENCE not in changed:
            changed.append(REFERENCE)  # is not sent to another address unless repeated
        if not changed and not sends:
            return None
        return Change(
            Action.CHANGE,
            kind,
            item.label,
            row[kind.id],
            fields={name: after[name] for name in changed},
            before={name: row[name] for name in changed},
            key_of=item if sends else None,
        )

    def _of_team(self, kind: Kind, item: Declared) -> Fields:
        """The fields of a key that its team gives it, if the file leaves them out."""
        if kind is not KEYS or item.fields.get("team_id") is None:
            return {}
        team = item.fields["team_id"]
        listed = [each.fields for each in self._declaration.get(TEAMS.name, ())]
        for fields in (*listed, *self._rows[TEAMS.name]):
            if fields["id"] == team:
                given = fields.get("key_defaults") or {}
                return {
                    name: value
                    for name, value in given.items()
                    if name not in item.fields and value not in (None, [])
                }
        return {}

    def _sends_key(
        self, kind: Kind, item: Declared, row: Fields, changed: Sequence[str]
    ) -> bool:
        if kind is not PROVIDERS or not has_key_source(item.fields):
            return False
        unknown = not row["api_key_configured"] or BASE_URL in changed
        return unknown or self._scope.send_keys

    def _ambiguous_keys(self) -> Iterator[Problem]:
        names = [row["name"] for row in self._rows[KEYS.name]]
        for item in self._declaration.get(KEYS.name, ()):
            if (count := names.count(item.label)) > 1:
                yield Problem(
                    (*item.path, KEYS.label),
                    f"the proxy has {count} keys of the name {item.label!r}; rename "
                    "or revoke all but one",
                )

    def _providers_without_credential(self) -> Iterator[Problem]:
        for item in self._declaration.get(PROVIDERS.name, ()):
            given = has_key_source(item.fields) or item.fields.get(REFERENCE)
            row = self._row(PROVIDERS, item.label)
            if given:
                continue
            if row is None:
                yield Problem(item.path, f"a new provider needs its key; {ADVICE}")
                continue
            after = wanted(PROVIDERS, self._schemas[PROVIDERS.name], item.fields)
            if after.get(BASE_URL, row[BASE_URL]) != row[BASE_URL]:
                yield Problem(
                    (*item.path, BASE_URL),
                    f"its key was given for another address, {row[BASE_URL]}; {ADVICE}",
                )

    def _unknown_providers(self) -> Iterator[Problem]:
        removed = {row["id"] for row in self._removed(PROVIDERS)}
        known = {row["id"] for row in self._rows[PROVIDERS.name]} - removed
        known |= {item.label for item in self._declaration.get(PROVIDERS.name, ())}
        for item in self._declaration.get(MODELS.name, ()):
            for id_ in sorted(_providers_of(item.fields) - known):
                text = f"there is no provider {id_!r}{nearest(id_, known)}"
                yield Problem(item.path, text)

    def _in_use(self, kind: Kind, by: Kind, uses: Any) -> Iterator[Problem]:
        """Removed ones that something needs which is not in the file."""
        if by.name in self._declaration:
            kept: list[tuple[str, Fields]] = [
                (item.label, item.fields) for item in self._declaration[by.name]
            ]
        else:
            kept = [(row[by.label], row) for row in self._rows[by.name]]
        for row in self._removed(kind):
            for label, fields in kept:
                if row[kind.id] in uses(fields):
                    yield Problem(
                        (kind.name,),
                        f"{kind.one} {row[kind.id]} would be deleted, but {by.one} "
                        f"{label} uses it",
                    )


def _providers_of(fields: Fields) -> set[str]:
    targets = fields.get("targets") or [fields]
    return {target["provider_id"] for target in targets}


def _creation(kind: Kind, item: Declared, schema: KindSchema) -> Change:
    """With the fields of the file only: the API knows the defaults."""
    fields = without_sources(item.fields)
    given = {name: value for name, value in fields.items() if value is not None}
    taken = schema.create["properties"]
    return Change(
        Action.CREATE,
        kind,
        item.label,
        fields={name: value for name, value in given.items() if name in taken},
        later={
            name: value
            for name, value in given.items()
            if name not in taken and value != schema.default(name)
        },
        key_of=item if has_key_source(item.fields) else None,
    )
