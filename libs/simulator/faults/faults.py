"""Scripted faults: their fields, and which fault applies to a request. Pure."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from libs.simulator.api.answers import Fate
from libs.simulator.wire import Json

Stage = Literal["http", "upgrade", "frame"]


class ErrorSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """The error inside a failed or error event."""

    code: str = "server_error"
    message: str = "The simulated upstream was told to fail."
    # An `error` event may carry its fields inside an `error` object.
    nested: bool = False


class Fault(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """One way to misbehave. The fields that are set apply together."""

    # Answer with this status. `body` replaces the usual error body; `code` selects
    # another error (insufficient_quota, slow_down).
    status: int | None = None
    headers: dict[str, str] = {}
    body: Any = None
    code: str | None = None
    message: str | None = None
    # TCP reset before any answer.
    reset: bool = False
    # Seconds without an answer, then a reset (true: until the client disconnects).
    timeout: float | bool = False
    # Bytes that are not HTTP, then the connection closes.
    garbage: bool = False
    # 401, as for a revoked key.
    revoked: bool = False
    # A Content-Length larger than the body.
    wrong_length: bool = False
    # Milliseconds before the headers, and between two events.
    delay_ms: float = 0
    event_gap_ms: float = 0
    # After this many events: silence, a TCP reset, a clean end.
    stall_after: int | None = None
    cut_after: int | None = None
    end_after: int | None = None
    # The response ends with another status than completed.
    failed_event: ErrorSpec | None = None
    error_event: ErrorSpec | None = None
    incomplete: str | None = None  # the reason
    # A `response.metadata` event with these headers follows the first event: what an
    # HTTP answer has in its headers, a socket's answer has there.
    metadata: dict[str, str] = {}
    # WebSocket: the status that refuses the upgrade; events before a TCP reset.
    ws_refuse: int | None = None
    ws_cut_after: int | None = None
    # gzip, for clients that accept it. Can be combined with any other fault.
    compress: bool = False

    @property
    def fate(self) -> Fate | None:
        """The terminal status that the fault prescribes."""
        if self.incomplete:
            return Fate("incomplete", self.incomplete)
        if self.failed_event:
            return Fate("failed", self.failed_event.code, self.failed_event.message)
        return None

    @property
    def cut(self) -> int | None:
        """The number of events after which the connection breaks."""
        return self.cut_after if self.ws_cut_after is None else self.ws_cut_after


NO_FAULT = Fault()
_COMPRESS_ONLY = Fault(compress=True)
_UPGRADE_FIELDS = ("ws_refuse", "revoked")
_FRAME_FIELDS = ("ws_cut_after",)
_SHORTHAND: dict[str, Any] = {
    "failed_event": {},
    "error_event": {},
    "incomplete": "max_output_tokens",
}


class Match(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """Which requests of a key the fault applies to."""

    path: str | None = None
    model: str | None = None


class Script(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """A fault as the control API accepts it."""

    fault: Fault
    key: str = "*"
    match: Match = Match()
    # How often it applies; null or absent: until it is cleared.
    times: int | None = None


def parse_script(body: Json) -> Script:
    """Parse a script; raises msgspec.ValidationError.

    `{"kind": K, "value": V}` is accepted for `{K: V}`, and `true` or a bare code where
    a field takes an object."""
    fault = body.get("fault")
    if isinstance(fault, dict):
        body = {**body, "fault": _spelled_out(fault)}
    return msgspec.convert(body, Script)


def _spelled_out(fault: Json) -> Json:
    spelled = {name: v for name, v in fault.items() if name not in ("kind", "value")}
    kind = fault.get("kind")
    if kind is not None and kind not in spelled:
        spelled[kind] = fault.get("value", True)
    for name, usual in _SHORTHAND.items():
        value = spelled.get(name)
        if value is True:
            spelled[name] = usual
        elif isinstance(value, str) and isinstance(usual, dict):
            spelled[name] = {"code": value}
    return spelled


@dataclass
class _Queued:
    script: Script
    left: int | None


class Faults:
    """The queue of scripted faults, in the order given."""

    def __init__(self) -> None:
        self._queue: list[_Queued] = []

    def add(self, script: Script) -> None:
        self._queue.append(_Queued(script, script.times))

    def clear(self) -> None:
        self._queue.clear()

    def listed(self) -> list[Json]:
        return [
            {"left": queued.left, **msgspec.to_builtins(queued.script)}
            for queued in self._queue
        ]

    def take(self, key: str, path: str, model: str | None, stage: Stage) -> Fault:
        """The fault that applies to this request, if any; its count is decremented."""
        compress = False
        for queued in list(self._queue):
            if not _applies(queued.script, key, path, model, stage):
                continue
            self._count_down(queued)
            if queued.script.fault == _COMPRESS_ONLY:
                compress = True
                continue
            return _with_compression(queued.script.fault, compress)
        return _with_compression(NO_FAULT, compress)

    def _count_down(self, queued: _Queued) -> None:
        if queued.left is None:
            return
        queued.left -= 1
        if queued.left <= 0:
            self._queue.remove(queued)


def _applies(
    script: Script, key: str, path: str, model: str | None, stage: Stage
) -> bool:
    if script.key not in ("*", key):
        return False
    if script.match.path and not path.startswith(script.match.path):
        return False
    # An upgrade names no model, so faults bound to a model do not apply to it.
    if script.match.model and script.match.model != model:
        return False
    return _concerns(script.fault, stage)


def _concerns(fault: Fault, stage: Stage) -> bool:
    """A fault of one stage does not apply to, and is not consumed by, another stage."""
    for_upgrade = any(getattr(fault, name) for name in _UPGRADE_FIELDS)
    if stage == "upgrade":
        return for_upgrade
    if stage == "frame":
        return fault.ws_refuse is None
    only_ws = fault.ws_refuse is not None or any(
        getattr(fault, name) is not None for name in _FRAME_FIELDS
    )
    return not only_ws


def _with_compression(fault: Fault, compress: bool) -> Fault:
    if not compress or fault.compress:
        return fault
    return msgspec.structs.replace(fault, compress=True)
