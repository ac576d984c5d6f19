"""Replaces the model in a request body; all other bytes stay as they are. Pure."""

import json

import msgspec

from libs.common.bodies.containers import Span
from libs.common.bodies.hints import LARGEST_QUICK
from libs.common.bodies.scanner import Scan
from libs.common.bodies.shapes import NULL, ODD_JSON, Shape


class _Raw(msgspec.Struct):
    model: msgspec.Raw = NULL


class _Model(Shape):
    model: str | None = None


_decoder = msgspec.json.Decoder(_Raw)


def with_model(body: bytes, model: str, scan: Scan | None = None) -> bytes | None:
    """Return `body` with its member `model` set to `model`, or None if there is no such
    member. `scan` is the finished scan of the body, if it was read in steps; it already
    knows the position."""
    span = scan.model_span if scan is not None else model_span(body)
    if span is None:
        return None
    start, end = span
    view = memoryview(body)
    return b"".join((view[:start], json.dumps(model).encode(), view[end:]))


def model_span(body: bytes) -> Span | None:
    """Return the position of the value of `model`. Reads only that member, at a tenth
    of the cost of the hints. If the bytes of its value occur once, that is the
    position."""
    if len(body) <= LARGEST_QUICK:
        try:
            value = bytes(_decoder.decode(body).model)
        except ODD_JSON:
            return _scanned(body)
        start = body.find(value)
        if body.find(value, start + 1) < 0:
            return start, start + len(value)
    return _scanned(body)


def _scanned(body: bytes) -> Span | None:
    """Read the body member by member."""
    scan = Scan(body, _Model)
    for _ in scan.steps():
        pass
    return scan.model_span if scan.parsed is not None and scan.complete else None
