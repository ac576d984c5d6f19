"""Reads resources from the environment, and resolves a credential to its key.

Pure: the environment is an argument. Invalid values raise `SettingError`, whose message
describes a key by its shape and never contains it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from libs.common.contracts.catalogue import Resource
from libs.common.errors import SettingError

KEY = "OPENAI_API_KEY"
KEYS = "OPENAI_API_KEYS"
WEIGHTS = "OPENAI_RESOURCE_WEIGHTS"
POOLS = "OPENAI_RESOURCE_POOL_IDS"
ACCOUNTS = "OPENAI_RESOURCE_ACCOUNT_IDS"
POOL = "OPENAI_RESOURCE_POOL_ID"
VARIABLES = (KEY, KEYS, f"{KEY}_1", WEIGHTS, POOLS, POOL, ACCOUNTS)

DEFAULT_POOL = "openai-default"
HIGHEST_WEIGHT = 1_000_000.0
# With a smaller weight, a load could reach the ranks that stand for times in Redis.
LOWEST_WEIGHT = 0.001

_NUMBERED = re.compile(rf"{KEY}_([0-9]{{1,6}})")
# Names are used in headers, Redis keys and URLs.
NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}"
_NAME = re.compile(NAME)
_NOT_IN_A_KEY = re.compile(r"[^!-~]|[\"',]")


@dataclass(frozen=True, slots=True)
class _Key:
    variable: str
    credential: str
    secret: str


def resources_from_environment(
    environ: Mapping[str, str], upstream_base_url: str
) -> tuple[Resource, ...]:
    """Return the keys of `environ` as resources `openai-1` to `openai-N`, in the order
    of the documented variables. A duplicate key counts once."""
    keys = tuple(_keys(environ))
    weights = _weights(environ, len(keys))
    pools = _pools(environ, len(keys))
    accounts = _accounts(environ, len(keys))
    return tuple(
        Resource(
            id=f"openai-{position}",
            name=f"openai-{position}",
            pool_id=pool,
            account_id=account or f"openai-{position}",
            weight=weight,
            base_url=upstream_base_url,
            credential=key.credential,
        )
        for position, (key, weight, pool, account) in enumerate(
            zip(keys, weights, pools, accounts, strict=True), start=1
        )
    )


def resolve_credential(credential: str, environ: Mapping[str, str]) -> str:
    """Return the key that `credential` (`env:NAME`, `env:NAME#2`) refers to. Gateways
    call this with their own environment: the catalogue never contains a key."""
    kind, _, rest = credential.partition(":")
    if kind != "env" or not rest:
        raise SettingError("credential", "is neither env:NAME nor sealed:TOKEN", "")
    variable, _, position = rest.partition("#")
    listed = _listed(environ.get(variable, ""))
    wanted = int(position) - 1 if position else 0
    if wanted >= len(listed):
        raise SettingError(
            variable,
            f"contains no key for the credential {credential}",
            "Give each gateway the same keys as the router",
        )
    return checked_key(variable, listed[wanted])


def keys_in(environ: Mapping[str, str], variable: str) -> int:
    """The number of keys in a variable of `environ`."""
    return len(_listed(environ.get(variable, "")))


def _keys(environ: Mapping[str, str]) -> Iterator[_Key]:
    seen: set[str] = set()
    for key in _given(environ):
        if key.secret not in seen:
            seen.add(key.secret)
            yield key


def _given(environ: Mapping[str, str]) -> Iterator[_Key]:
    for variable in (KEY, *_numbered(environ)):
        secret = environ.get(variable, "").strip()
        if secret:
            yield _Key(variable, f"env:{variable}", checked_key(variable, secret))
        if variable == KEY:
            for position, listed in enumerate(_listed(environ.get(KEYS, "")), start=1):
                yield _Key(KEYS, f"env:{KEYS}#{position}", checked_key(KEYS, listed))


def _numbered(environ: Mapping[str, str]) -> list[str]:
    """Numbered variables in numeric order; gaps are allowed."""
    found = [match for name in environ if (match := _NUMBERED.fullmatch(name))]
    return [m.group() for m in sorted(found, key=lambda m: (int(m[1]), m.group()))]


def _listed(value: str) -> list[str]:
    return [entry for part in value.split(",") if (entry := part.strip())]


def checked_key(variable: str, secret: str) -> str:
    """Return `secret` if it can be a key. Raises `SettingError` without the secret."""
    wrong = _NOT_IN_A_KEY.search(secret)
    if wrong is None:
        return secret
    raise SettingError(
        variable,
        f"is not a key: it contains {_described(wrong.group())} among its "
        f"{len(secret)} characters",
        f"Give one key; put several keys into {KEYS}, separated by commas",
    )


def _described(character: str) -> str:
    if character == ",":
        return "a comma"
    if character in "\"'":
        return "a quotation mark"
    if character in "\r\n":
        return "a line break"
    if character.isspace():
        return "a space"
    return "a control character" if character.isascii() else "a non-ASCII character"


def _weights(environ: Mapping[str, str], count: int) -> Sequence[float]:
    given = _by_position(environ, WEIGHTS, count)
    if given is None:
        return [1.0] * count
    return [_weight(entry, position) for position, entry in enumerate(given, start=1)]


def _weight(entry: str, position: int) -> float:
    try:
        weight = float(entry)
    except ValueError:
        weight = math.nan
    if LOWEST_WEIGHT <= weight <= HIGHEST_WEIGHT:  # False for nan
        return weight
    raise SettingError(
        WEIGHTS,
        f"entry {position} is not a number from {LOWEST_WEIGHT:g} to "
        f"{HIGHEST_WEIGHT:.0f}",
        "Give one number for each key, such as 1,2,0.5",
    )


def _pools(environ: Mapping[str, str], count: int) -> Sequence[str]:
    default = environ.get(POOL, "").strip() or DEFAULT_POOL
    _named(POOL, default, "its value")
    given = _by_position(environ, POOLS, count)
    if given is None:
        return [default] * count
    return [
        _named(POOLS, entry, f"entry {position}")
        for position, entry in enumerate(given, start=1)
    ]


def _accounts(environ: Mapping[str, str], count: int) -> Sequence[str]:
    """An empty entry stays empty: the resource is an account of its own."""
    given = _by_position(environ, ACCOUNTS, count) or [""] * count
    return [
        entry and _named(ACCOUNTS, entry, f"entry {position}")
        for position, entry in enumerate(given, start=1)
    ]


def _by_position(
    environ: Mapping[str, str], variable: str, count: int
) -> list[str] | None:
    value = environ.get(variable, "").strip()
    if not value:
        return None
    entries = [entry.strip() for entry in value.split(",")]
    if len(entries) == count:
        return entries
    raise SettingError(
        variable,
        f"has {len(entries)} {_plural(len(entries), 'entry', 'entries')} for "
        f"{count} {_plural(count, 'key', 'keys')} (a duplicate key counts once)",
        "Give one entry for each key, in order, or leave it unset",
    )


def _plural(count: int, one: str, several: str) -> str:
    return one if count == 1 else several


def _named(variable: str, name: str, which: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise SettingError(
        variable,
        f"{which} is empty" if not name else f"{which} is not a valid name",
        "Use up to 64 letters, digits and . _ : / @ -, starting with a letter or digit",
    )
