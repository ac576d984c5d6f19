"""Every operation of the admin API: those that change something, with what the audit
log has of them, and those that only ask."""

from dataclasses import dataclass
from typing import Any

# They change nothing in SQL: they ask upstreams, or explain.
ASKING = {
    ("post", "/admin/health/check"),
    ("post", "/admin/route/explain"),
    ("post", "/admin/providers/test"),
    ("post", "/admin/models/test"),
}


@dataclass
class Step:
    """A change. `kind`, `action`: of its row; `fields`: that differ. `refused`: the
    same with this body is an error. `again`: rows that the same call leaves when it is
    repeated; None: it is refused then."""

    method: str
    path: str
    body: dict[str, Any] | None
    kind: str
    action: str
    fields: set[str]
    refused: dict[str, Any] | None = None
    again: int | None = None


STEPS = [
    Step(
        "post", "/admin/teams", {"id": "red", "name": "Red"},
        "team", "create", {"name"}, {"id": "red", "name": 1},
    ),
    Step(
        "patch", "/admin/teams/{team_id}", {"policy": {"models": ["gpt-*"]}},
        "team", "change", {"policy"}, {"nane": ""}, again=0,
    ),
    Step(
        "post", "/admin/keys", {"name": "ci", "pools": ["cheap"]},
        "proxy_key", "create",
        {"name", "prefix", "pools", "queue_weight", "enabled"}, {"name": 1}, again=1,
    ),
    Step(
        "patch", "/admin/keys/{key_id}", {"tokens_per_minute": 5, "name": "ci"},
        "proxy_key", "change", {"tokens_per_minute"}, {"pools": 1}, again=0,
    ),
    Step(
        "delete", "/admin/keys/{key_id}", None,
        "proxy_key", "revoke", {"enabled", "revoked_at"}, again=0,
    ),
    Step(
        "delete", "/admin/teams/{team_id}", None, "team", "delete", {"name", "policy"},
    ),
    Step(
        "post", "/admin/providers",
        {"id": "acme", "api_key": "sk-first-secret"},
        "provider", "create",
        {
            "name", "provider_type", "base_url", "wire_api", "auth_type",
            "api_key_sealed", "weight", "enabled",
        },
        {"id": "other", "api_key": "sk-first-secret", "base_url": "ftp://x"},
    ),
    Step(
        "patch", "/admin/providers/{provider_id}", {"api_key": "sk-second-secret"},
        "provider", "change", {"api_key_sealed"}, {"weight": -1}, again=1,
    ),
    Step(
        "post", "/admin/models",
        {"alias": "fast", "provider_id": "acme", "upstream_id": "gpt-5.5"},
        "model", "create", {"provider_id", "upstream_id", "enabled"},
        {"alias": "x", "provider_id": "nobody", "upstream_id": "gpt-5.5"},
    ),
    Step(
        "patch", "/admin/models/{alias}",
        {"targets": [{"provider_id": "acme", "upstream_id": "gpt-5.5", "weight": 2}]},
        "model", "change", {"targets"}, {"provider_id": "nobody"}, again=0,
    ),
    Step(
        "delete", "/admin/models/{alias}", None,
        "model", "delete", {"provider_id", "upstream_id", "targets", "enabled"},
    ),
    Step(
        "delete", "/admin/providers/{provider_id}", None, "provider", "delete",
        {
            "name", "provider_type", "base_url", "wire_api", "auth_type",
            "api_key_sealed", "weight", "enabled",
        },
    ),
    Step(
        "put", "/admin/prices/{model}",
        {"prices": [{"input": 1.0, "cached_input": 0.5, "output": 2.0}]},
        "price", "change", {"model", "prices"}, {"prices": []}, again=0,
    ),
    Step(
        "delete", "/admin/prices/{model}", None, "price", "delete",
        {"model", "prices"},
    ),
    Step(
        "post", "/admin/tokens", {"name": "ann", "role": "admin"},
        "admin_token", "create", {"name", "role"}, {"name": "default"},
    ),
    Step(
        "delete", "/admin/tokens/{name}", None,
        "admin_token", "revoke", {"name", "role"},
    ),
]  # fmt: skip
