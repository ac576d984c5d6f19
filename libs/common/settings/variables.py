"""All variables that the proxy reads, and what is wrong with the environment as a
whole: names that nothing reads, and values that still have their quotation marks."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from libs.common.errors import SettingError, shown
from libs.common.settings import http_proxies, resources
from libs.common.settings.base import Settings
from libs.common.settings.credential_variables import DEFAULT_VARIABLES
from libs.common.settings.services import SERVICES, UpSettings

MODELS: tuple[type[Settings], ...] = (*SERVICES.values(), UpSettings)
PREFIXES = ("PROXY_", "OPENAI_")
FILE = "_FILE"


def _secret(field: FieldInfo) -> bool:
    return not field.repr or SecretStr in (
        field.annotation,
        *getattr(field.annotation, "__args__", ()),
    )


SETTINGS = {v for model in MODELS for v in model.variables()}
# Each of these can also be given as the path of a file, in NAME_FILE.
SECRETS = {
    *(resources.KEY, resources.KEYS),
    *(
        field.alias or name.upper()
        for model in MODELS
        for name, field in model.model_fields.items()
        if _secret(field)
    ),
}
NUMBERED = re.compile(rf"{resources.KEY}_[0-9]{{1,6}}")
_NUMBERED_FILE = re.compile(NUMBERED.pattern + FILE)
_KNOWN = SETTINGS | set(resources.VARIABLES) | {f"{name}{FILE}" for name in SECRETS}

# Variables of the SDKs, Codex and our examples, which a shell may have for clients.
OF_CLIENTS = {
    "PROXY_KEY",  # the proxy key, in README.md's configuration of Codex
    *("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_WEBSOCKET_BASE_URL"),
    *("OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_ORGANIZATION_ID"),
    *("OPENAI_PROJECT", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"),
    *("OPENAI_API_TYPE", "OPENAI_API_VERSION", "OPENAI_LOG", "OPENAI_PROXY"),
    *("OPENAI_MODEL", "OPENAI_DEFAULT_MODEL", "OPENAI_CUSTOM_HEADERS"),
    *("OPENAI_WEBHOOK_SECRET", "OPENAI_AGENT_HARNESS_ID"),
}
_OF_AGENTS = "OPENAI_AGENTS_"

# Kubernetes sets these in every pod for each service of its namespace.
_SERVICE_LINK = re.compile(
    r"(?P<service>[A-Z0-9_]+?)_(?:SERVICE_HOST|SERVICE_PORT\w*|PORT(?:_[0-9]+_\w+)?)"
)


def is_known(name: str) -> bool:
    """Whether a process of the proxy reads the variable."""
    return bool(
        name in _KNOWN or NUMBERED.fullmatch(name) or _NUMBERED_FILE.fullmatch(name)
    )


def is_of_clients(name: str) -> bool:
    """Whether clients read the variable, and the proxy does not."""
    return name in OF_CLIENTS or name.startswith(_OF_AGENTS)


def unknown_variables(environ: Mapping[str, str]) -> Iterator[SettingError]:
    """An error for each variable that looks like ours but is not read."""
    for name in sorted(environ):
        if not name.startswith(PREFIXES) or not environ[name]:
            continue
        if is_known(name) or is_of_clients(name) or _is_service_link(name, environ):
            continue
        nearest = _nearest(name)
        yield SettingError(shown(name), "is not a variable of this proxy", nearest)


def _is_service_link(name: str, environ: Mapping[str, str]) -> bool:
    found = _SERVICE_LINK.fullmatch(name)
    return found is not None and f"{found['service']}_SERVICE_HOST" in environ


def _nearest(name: str) -> str:
    """Names are compared without the prefix, which all have in common."""
    prefix = next(each for each in PREFIXES if name.startswith(each))
    ours = {each.removeprefix(prefix) for each in _KNOWN if each.startswith(prefix)}
    near = get_close_matches(name.removeprefix(prefix)[:100], sorted(ours), 1)
    if near:
        return f"Did you mean {prefix}{near[0]}?"
    return "The configuration tables in README.md list all variables"


def quoted_values(environ: Mapping[str, str]) -> Iterator[SettingError]:
    """An error for each setting whose value is in quotation marks. Compose removes them
    from its files, `docker run --env-file` does not."""
    proxies = {name for names in http_proxies.VARIABLES.values() for name in names}
    globs = environ.get("PROXY_CREDENTIAL_VARIABLES") or DEFAULT_VARIABLES
    of_providers = [glob.strip() for glob in globs.split(",")]
    for name in sorted(environ):
        read = is_known(name) or name in proxies
        if not read and not any(fnmatchcase(name, glob) for glob in of_providers):
            continue
        value = environ[name].strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            yield SettingError(
                name,
                f"begins and ends with a quotation mark (it has {len(value)} "
                "characters)",
                "Remove both: `docker run --env-file` passes them on",
            )
