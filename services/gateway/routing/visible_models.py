"""What `GET /v1/models` shows: the upstream's models and the aliases, less those that a
proxy key may not use. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import Targets
from services.gateway.auth.policy import MODELS, allows_model, plain_path
from services.gateway.errors import Problem
from services.gateway.routing.model_alias import allowed_targets
from services.gateway.server.request import Request

OWNER = "responses-proxy"


class _Model(msgspec.Struct):
    id: str | None = None


def lists_models(request: Request) -> bool:
    """Does it ask for the list of models, or for one of them?"""
    if request.method not in ("GET", "HEAD"):
        return False
    path = plain_path(request.path[3:])
    return path == MODELS or path.startswith(MODELS + b"/")


def model_asked_for(path: bytes) -> str | None:
    """The model in a path below /v1; None for the list."""
    name = unquote(path.strip(b"/").partition(b"/")[2].strip(b"/"))
    return name or None


class VisibleModels:
    """The models that a request may see."""

    def __init__(
        self, aliases: Mapping[str, Targets], principal: Principal | None
    ) -> None:
        self._aliases = aliases
        self._principal = principal
        self._policies = () if principal is None else principal.policies
        self.hides = any(policy.models for policy in self._policies)

    @property
    def differs(self) -> bool:
        """May the upstream's list be another one?"""
        return self.hides or bool(self._aliases)

    def shows(self, name: str) -> bool:
        """May the key use this model of the upstream, or this alias?"""
        targets = self._aliases.get(name)
        if targets is None:
            return allows_model(self._policies, name)
        sent = tuple(target.upstream_id for target in targets)
        if not allows_model(self._policies, name, sent):
            return False
        try:
            return bool(allowed_targets(targets, self._principal, None))
        except Problem:
            return False

    def alias(self, name: str) -> dict[str, Any] | None:
        """The object of an alias, in OpenAI's shape; None if it is none."""
        if name not in self._aliases:
            return None
        return {"id": name, "object": "model", "created": 0, "owned_by": OWNER}

    def listed(self, body: bytes) -> bytes | None:
        """The upstream's list as this request may see it; None if it is no list of
        models."""
        try:
            upstreams = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            models = msgspec.json.decode(upstreams["data"], type=list[msgspec.Raw])
            kept = [model for model in models if self._keeps(model)]
        except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
            return None
        return msgspec.json.encode({**upstreams, "data": [*kept, *self._own()]})

    def _keeps(self, model: msgspec.Raw) -> bool:
        """An alias with the name of a model replaces it."""
        name = msgspec.json.decode(model, type=_Model).id
        if name is None:
            return not self.hides
        return name not in self._aliases and self.shows(name)

    def _own(self) -> Iterator[dict[str, Any] | None]:
        return (self.alias(name) for name in sorted(self._aliases) if self.shows(name))
