"""Reads a deployment from the environment, and finds everything wrong with it at once.

Nothing here contacts anybody."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from morphcloud.config import resolve_settings

from libs.cli.checks.finding import Refused
from libs.cli.environment import examined
from libs.cli.operations.settings_check import setting_problems
from libs.common.errors import SettingError
from libs.common.settings import http_proxies, resources
from libs.common.settings.base import CommonSettings
from libs.common.settings.credential_variables import BadGlob, parse_globs
from libs.common.settings.messages import SettingErrorCarrier
from libs.common.settings.services import GatewaySettings
from libs.common.settings.upstreams import ProviderSettings, checked_url
from scripts.morph import steps

STAGES = ("prod", "stage")
KEY = "MORPH_API_KEY"
SNAPSHOT = "MORPH_BUILDER_SNAPSHOT_ID"
IMAGE = "MORPH_BASE_IMAGE_ID"
DATABASES = ("PROXY_DATABASE_URL", "SERVICE_DATABASE_URL", "DATABASE_URL")

# What an instance needs; another value contradicts the deployment.
FIXED = {"PROXY_HOST": "0.0.0.0", "PROXY_DATA_DIR": steps.DATA_DIR}  # noqa: S104
# The instance is reachable from the Internet.
DEFAULTS = {"PROXY_REQUIRE_KEYS": "true"}
LOWEST_PORT = 1024  # the service is not root

_WORD = re.compile(r"[!-~]{1,512}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_UPSTREAM_KEY = re.compile(rf"{resources.KEY}(S|_[0-9]{{1,6}})?")
_EGRESS = {
    *(name for names in http_proxies.VARIABLES.values() for name in names),
    *("NO_PROXY", "no_proxy"),
}
_LOOPBACK = re.compile(r"localhost|127\..*|::1", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """Which deployment, and the key of the account it is in."""

    name: str
    stage: str
    address: str  # of the API
    variable: str  # that holds the key
    key: str = field(repr=False)


@dataclass(frozen=True)
class Base:
    """What the first step starts from: a snapshot, or an image of this size."""

    variable: str
    id: str
    vcpus: int = 0
    memory_mb: int = 0
    disk_mb: int = 0

    def __str__(self) -> str:
        if self.variable == SNAPSHOT:
            return f"snapshot {self.id}"
        return (
            f"image {self.id} with {self.vcpus} vCPUs, {self.memory_mb} MB of memory "
            f"and {self.disk_mb} MB of disk"
        )


@dataclass(frozen=True)
class Configuration:
    """A valid deployment. `files` are contents of local files that variables name."""

    target: Target
    base: Base
    environment: Mapping[str, str] = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    warnings: tuple[str, ...]

    @property
    def port(self) -> int:
        """The port of the gateway."""
        return CommonSettings.read(self.environment).port


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    name: str
    stage: str | None
    vcpus: int
    memory_mb: int
    disk_mb: int


def read(environ: Mapping[str, str], options: Options) -> Configuration:
    """Raises `Refused` with every problem."""
    environ, problems, warnings = examined(environ)
    target = _target(environ, options, problems)
    base = _base(environ, options, problems)
    environment = passed_on(environ)
    problems += _missing(environment)
    problems += _contradictions(environment)
    environment = {**DEFAULTS, **environment, **FIXED}
    problems += setting_problems(environment)
    files = _files(environment, problems)
    if problems or target is None or base is None:
        raise Refused(problems)
    for variable in files:
        del environment[variable]
    notes = (*map(str, warnings), *_notes(environment))
    return Configuration(target, base, environment, files, notes)


def read_target(environ: Mapping[str, str], options: Options) -> Target:
    """What --destroy needs. Raises `Refused`."""
    problems: list[SettingError] = []
    target = _target(environ, options, problems)
    if target is None:
        raise Refused(problems)
    return target


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the service gets, those of this machine left out."""
    try:
        globs = parse_globs(
            environ.get("PROXY_CREDENTIAL_VARIABLES")
            or ProviderSettings.model_fields["credential_variables"].default
        )
    except BadGlob:  # found again, and reported, by `setting_problems`
        globs = ()
    return {
        name: value
        for name, value in sorted(environ.items())
        if value.strip()
        and not name.startswith("MORPH_")
        and (
            name.startswith(("PROXY_", "OPENAI_", "OTEL_"))
            or name in DATABASES
            or name in _EGRESS
            or any(fnmatchcase(name, glob) for glob in globs)
        )
    }


def _target(
    environ: Mapping[str, str], options: Options, problems: list[SettingError]
) -> Target | None:
    common = environ.get(KEY, "").strip()
    keys = {s: environ.get(f"{KEY}_{s.upper()}", "").strip() for s in STAGES}
    stage = options.stage or _only_stage(common, keys, problems)
    if stage is None:
        return None
    variable = f"{KEY}_{stage.upper()}" if keys[stage] else KEY
    key = keys[stage] or common
    if not key:
        own = f"{KEY}_{stage.upper()}"
        fix = f"Set it, or {own} for the stage {stage}"
        problems.append(SettingError(KEY, "is not set", fix))
    elif not _WORD.fullmatch(key):
        problem = f"is not a key: its {len(key)} characters are not one ASCII word"
        problems.append(SettingError(variable, problem, "Copy the key again"))
    else:
        address = _address(environ, problems)
        if address is not None:
            return Target(options.name, stage, address, variable, key)
    return None


def _address(environ: Mapping[str, str], problems: list[SettingError]) -> str | None:
    """The address of the API, from where the SDK takes it: MORPH_BASE_URL,
    MORPH_API_HOST, MORPH_ENV or its configuration file."""
    try:
        url = checked_url("MORPH_BASE_URL", resolve_settings(env=environ).base_url)
    except SettingErrorCarrier as error:
        problems.append(error.setting_error)
        return None
    parts = urlsplit(url)
    if parts.scheme == "http" and not http_proxies.is_loopback(parts.hostname or ""):
        problem = "is not encrypted, and the key of Morph is sent there"
        problems.append(SettingError("MORPH_BASE_URL", problem, "Use https://"))
        return None
    return url


def _only_stage(
    common: str, keys: Mapping[str, str], problems: list[SettingError]
) -> str | None:
    """The stage if none is named: that of the only key, or prod."""
    given = [stage for stage in STAGES if keys[stage]]
    named = [f"{KEY}_{stage.upper()}" for stage in given]
    if len(given) == 1 and common in ("", keys[given[0]]):
        return given[0]
    if not given:
        return STAGES[0]
    variables = ", ".join([*named, *([KEY] if common else [])])
    problem = "are set, and no stage is chosen"
    fix = "Choose one with --stage prod or --stage stage"
    problems.append(SettingError(variables, problem, fix))
    return None


def _base(
    environ: Mapping[str, str], options: Options, problems: list[SettingError]
) -> Base | None:
    given = {v: environ.get(v, "").strip() for v in (SNAPSHOT, IMAGE)}
    variables = [variable for variable, id_ in given.items() if id_]
    if not variables:
        problem = f"is not set, and {IMAGE} is not either"
        fix = "Set one of them: the snapshot or the image to build on"
        problems.append(SettingError(SNAPSHOT, problem, fix))
        return None
    if len(variables) > 1:
        problem = f"is set, and {IMAGE} is too"
        fix = "Unset one of them: the first step starts from one base"
        problems.append(SettingError(SNAPSHOT, problem, fix))
        return None
    variable = variables[0]
    if not _ID.fullmatch(given[variable]):
        fix = "Use an id such as snapshot_x1y2z3 or morphvm-minimal"
        problems.append(SettingError(variable, "is not an id", fix))
        return None
    if variable == SNAPSHOT:
        return Base(variable, given[variable])
    size = (options.vcpus, options.memory_mb, options.disk_mb)
    return Base(variable, given[variable], *size)


def _missing(environment: Mapping[str, str]) -> Iterator[SettingError]:
    if not any(environment.get(variable) for variable in DATABASES):
        yield SettingError(
            DATABASES[0],
            "is not set, and an instance's disk ends with the instance",
            "Use postgresql://USER:PASSWORD@HOST/DATABASE of a server outside",
        )
    simulate = environment.get("PROXY_SIMULATE", "auto").strip().lower()
    keys = any(_UPSTREAM_KEY.fullmatch(variable) for variable in environment)
    if not keys and simulate == "auto":
        yield SettingError(
            f"{resources.KEY}_1",
            "is not set, and no other upstream key is",
            f"Set {resources.KEY}_1 to {resources.KEY}_4, {resources.KEY} or "
            f"{resources.KEYS}; or PROXY_SIMULATE=false to use registered providers "
            "only",
        )


def _contradictions(environment: Mapping[str, str]) -> Iterator[SettingError]:
    for variable, needed in FIXED.items():
        if environment.get(variable, needed) != needed:
            problem = f"is set, but on the instance it must be {needed}"
            yield SettingError(variable, problem, "Unset it")
    port = environment.get("PROXY_PORT", "")
    if port.isascii() and port.isdigit() and 0 < int(port) < LOWEST_PORT:
        problem = f"is {port}, which only root may listen on, and the service is not"
        yield SettingError("PROXY_PORT", problem, "Use 8000; clients use port 443")
    open_admin = environment.get("PROXY_ALLOW_OPEN_ADMIN", "").strip().lower()
    if open_admin in {"true", "1", "yes", "on", "t", "y"} and not environment.get(
        "PROXY_ADMIN_TOKEN"
    ):
        yield SettingError(
            "PROXY_ALLOW_OPEN_ADMIN",
            f"is {open_admin}, but the instance is reachable from the Internet",
            "Unset it, or set PROXY_ADMIN_TOKEN",
        )


def _files(
    environment: Mapping[str, str], problems: list[SettingError]
) -> dict[str, bytes]:
    """Contents of the files that variables such as PROXY_UPSTREAM_CA_FILE name."""
    files = {}
    reported = {problem.variable for problem in problems}
    for variable, value in environment.items():
        if not variable.endswith("_FILE") or variable in reported:
            continue
        try:
            files[variable] = Path(value.strip()).read_bytes()
        except OSError as error:
            problem = f"names a file that cannot be read ({error.strerror})"
            fix = "Name a file of this machine; it is copied to the instance"
            problems.append(SettingError(variable, problem, fix))
    return files


def _notes(environment: Mapping[str, str]) -> Iterator[str]:
    """What is allowed, but rarely meant."""
    if not GatewaySettings.read(environment).require_keys:
        yield (
            "PROXY_REQUIRE_KEYS is false: everyone who knows the URL can use the "
            "upstream keys"
        )
    if not environment.get("PROXY_ADMIN_TOKEN"):
        yield (
            "PROXY_ADMIN_TOKEN is not set: each new instance generates its own token "
            "(docs/deploy-morph.md)"
        )
    for variable in (*DATABASES, "PROXY_REDIS_URL"):
        url = environment.get(variable, "")
        host = urlsplit(url).hostname or ""
        if url.startswith("unix:") or _LOOPBACK.fullmatch(host):
            yield f"{variable} names the instance itself, not this machine"
    for variable in sorted(_EGRESS & set(environment)):
        yield f"{variable} is used by this command, and also by the instance"
