"""The targets of a request whose model alias has several: which one is tried when.
Pure."""

from typing import TypeVar

from libs.common.bodies.scanner import Scan
from libs.common.routing.aliases import AliasTarget, Targets, at_first
from libs.common.routing.types import (
    NoCapacity,
    OwnerGone,
    Refusal,
    UnknownPool,
)

Told = TypeVar("Told", bound=Exception)

# Refusals after which another target may serve. A rate-limited account is waited for:
# nobody else has its state.
_GO_ON = (NoCapacity, OwnerGone, UnknownPool)


class TargetOrder:
    """The order of one request. In a first round each target is asked for a resource
    that can serve; when none has any, the second round takes also one that is cooling
    down, as without an alias."""

    __slots__ = (
        "_at", "_refusal", "_targets", "last_resort", "located", "on_socket", "source"
    )  # fmt: skip

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._at = 0
        self._refusal: Refusal | None = None
        self.last_resort = False  # in the second round
        self.located = False  # it is known where the request's state is
        self.on_socket = False  # the provider of its WebSocket is preferred
        # The body as the client sent it, opened, and its `Scan`.
        self.source: tuple[bytes, Scan | None] = b"", None

    @property
    def targets(self) -> Targets:
        return self._targets

    @property
    def current(self) -> AliasTarget:
        return self._targets[self._at]

    def target_of(self, resource_id: str | None) -> AliasTarget:
        """The one with a resource; the first one if none has it."""
        found = (t for t in self._targets if resource_id in t.resource_ids)
        return next(found, self._targets[0])

    def prefer(self, provider_id: str | None) -> None:
        """Begin with the targets of a provider."""
        self._targets = at_first(self._targets, provider_id)
        self._at = 0

    def refused(self, refusal: Exception) -> bool:
        """Routing refused `current`. Is there another one to ask, now `current`?"""
        if not isinstance(refusal, _GO_ON):
            return False
        self._refusal = _telling(self._refusal, refusal)
        self._at += 1
        if self._at < len(self._targets):
            return True
        first = not self.last_resort
        self._at = 0
        self.last_resort = first and isinstance(self._refusal, NoCapacity)
        return self.last_resort

    def told(self, refusal: Told) -> Refusal | Told:
        """What the client is told after the last refusal."""
        said, self._refusal = self._refusal, None
        if not isinstance(refusal, _GO_ON):
            return refusal
        return _telling(said, refusal)

    def failed(self, tried: tuple[str, ...], left: int) -> bool:
        """An attempt at `current` failed, and `left` are left. Is it the turn of the
        next target, now `current`? It is when the provider has no other resource, or
        each of the attempts left is needed for another target."""
        further = len(self._targets) - self._at - 1
        exhausted = self.current.resource_ids.issubset(tried)
        if not further or not left or not (exhausted or left <= further):
            return False
        self._at += 1
        return True


def _telling(before: Refusal | None, refusal: Refusal) -> Refusal:
    """Of two refusals the one that tells the client more: that it may ask again, the
    sooner the better; else that nobody has its state any more."""
    if before is None or isinstance(before, UnknownPool):
        return refusal
    if isinstance(before, NoCapacity) and isinstance(refusal, NoCapacity):
        waits = before.retry_after_ms, refusal.retry_after_ms
        return before if 0 < waits[0] <= waits[1] or not waits[1] else refusal
    return before if isinstance(before, NoCapacity) else refusal
