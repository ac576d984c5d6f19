"""Secrets in files: NAME_FILE names a file that contains the value of NAME.

As in the official images of Postgres and MySQL, the values replace the variables
NAME_FILE in the environment of the processes that are started."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from libs.common.errors import SettingError
from libs.common.settings.resources import KEYS
from libs.common.settings.variables import FILE, NUMBERED, SECRETS

LARGEST = 65_536  # bytes


def with_secret_files(
    environ: Mapping[str, str],
) -> tuple[dict[str, str], list[SettingError]]:
    """Return `environ` with each NAME_FILE of a secret replaced by NAME, and an error
    for each that cannot be. Errors contain neither values nor paths, because a secret
    may be in the wrong variable."""
    merged, errors = dict(environ), []
    for name in _named(environ):
        path = merged.pop(f"{name}{FILE}")
        try:
            if path:
                merged[name] = _value(name, path, environ)
        except SettingError as error:
            errors.append(error)
    return merged, errors


def _named(environ: Mapping[str, str]) -> Iterator[str]:
    for variable in sorted(environ):
        name = variable.removesuffix(FILE)
        if name != variable and (name in SECRETS or NUMBERED.fullmatch(name)):
            yield name


def _value(name: str, path: str, environ: Mapping[str, str]) -> str:
    variable = f"{name}{FILE}"
    if environ.get(name):
        raise SettingError(
            variable, f"is set, and {name} is set too", "Unset one of the two"
        )
    text = _text(variable, path)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise SettingError(
            variable, "names a file that is empty", f"Write the value of {name} into it"
        )
    if name == KEYS:
        return ",".join(lines)
    if len(lines) > 1 or "\0" in text:
        raise SettingError(
            variable,
            f"names a file with {len(lines)} lines"
            if len(lines) > 1
            else "names a file that contains a NUL character",
            f"Let the file contain the value of {name} alone, in one line",
        )
    return lines[0]


def _text(variable: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a path"
        raise SettingError(
            variable,
            f"names a file that cannot be read ({cause})",
            "Correct the path, or let this user read the file",
        ) from None
    if len(content) > LARGEST:
        problem = f"names a file larger than {LARGEST} bytes"
        raise SettingError(variable, problem, "Name the file that holds the secret")
    try:
        return content.decode()
    except UnicodeDecodeError:
        problem = "names a file that is not UTF-8 text"
        raise SettingError(variable, problem, "Save it as text") from None
