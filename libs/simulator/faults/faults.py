"""Scripted misbehaviour: what a fault is, and which one a request meets. Pure."""

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
    """One way to misbehave; the fields given apply together."""

    # An answer of this status. `body` replaces the usual envelope; `code` picks
    # another error (insufficient_quota, slow_down).
    status: int | None = None
    headers: dict[str, str] = {}
    body: Any = None
    code: str | None = None
    message: str | None = None
    # TCP reset before any answer.
    reset: bool = False
    # No answer for this many seconds (true: until the client leaves), then a reset.
    timeout: float | bool = False
    # Bytes that are no HTTP, then the end.
    garbage: bool = False
    # 401, as for a revoked key.
    revoked: bool = False
    # A Content-Length larger than the body.
    wrong_length: bool = False
    # Milliseconds before the headers, and between two events.
    delay_ms: float = 0
    event_gap_ms: float = 0
    # After so many events: silence, a TCP reset, a clean end.
    stall_after: int | None = None
    cut_after: int | None = None
    end_after: int | None = None
    # The response ends otherwise than completed.
    failed_event: ErrorSpec | None = None
    error_event: ErrorSpec | None = None
    incomplete: str | None = None  # the reason
    # WebSocket: the status that refuses the upgrade; events before a TCP reset.
    ws_refuse: int | None = None
    ws_cut_after: int | None = None
    # gzip for clients that accept it. Alone it goes with any other fault.
    compress: bool = False

    @property
    def fate(self) -> Fate | None:
        """How the response itself ends."""
        if self.incomplete:
            return Fate("incomplete", self.incomplete)
        if self.failed_event:
            return Fate("failed", self.failed_event.code, self.failed_event.message)
        return None

    @property
    def cut(self) -> int | None:
        """After how many events the connection breaks."""
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
    """Which requests of a key meet the fault."""

    path: str | None = None
    model: str | None = None


class Script(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """A fault as the control API takes it."""

    fault: Fault
    key: str = "*"
    match: Match = Match()
    # How often; null or absent: until cleared.
    times: int | None = None


def parse_script(body: Json) -> Script:
    """Read a script; msgspec.ValidationError says what is wrong.

    `{"kind": K, "value": V}` may be written for `{K: V}`, and `true` or a bare
    code where a field takes an object.
    """
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
        """The fault this request meets; its count goes down in the same step."""
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
    # An upgrade names no model: it is never refused by a fault bound to one.
    if script.match.model and script.match.model != model:
        return False
    return _concerns(script.fault, stage)


def _concerns(fault: Fault, stage: Stage) -> bool:
    """A fault made for one stage is not used up by another."""
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
