"""Settings of the simulated upstream: keys, limits, timing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_KEYS: Mapping[str, str] = {f"sk-sim-{n}": f"acct-{n}" for n in range(1, 5)}

DEFAULT_MODELS = (
    "gpt-6-sol",
    "gpt-6-luna",
    "gpt-5.5",
    "gpt-5.4",
    "gpt-5.4-mini",
    "gpt-5.4-nano",
    "gpt-4.1-mini",
    "text-embedding-3-small",
)

MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """Settings of one simulated upstream."""

    # API key -> account (organization); several keys may share one account.
    keys: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_KEYS))
    # Accept unlisted keys too, each as an account of its own.
    any_key: bool = False
    # Send each authenticated caller its organization and project in headers.
    name_accounts: bool = True
    # How long a background response takes, in ms.
    background_ms: int = 300
    # Limits of what is remembered; the oldest entries are dropped.
    max_responses: int = 50_000
    max_response_bytes: int = 256 * 1024 * 1024
    max_journal_entries: int = 2_000
    max_journal_body_bytes: int = 8 * 1024 * 1024
    models: tuple[str, ...] = DEFAULT_MODELS
    # Speak as the v1 API of Azure OpenAI, where `models` are the deployments.
    azure: bool = False


def parse_keys(text: str) -> dict[str, str]:
    """Parse `key=account,key=account`; ValueError names the invalid part."""
    keys: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, account = (piece.strip() for piece in part.partition("="))
        if not (key and equals and account):
            raise ValueError(f"expected key=account, got {part!r}")
        keys[key] = account
    if not keys:
        raise ValueError("expected at least one key=account")
    return keys
