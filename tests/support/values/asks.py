"""Routing requests of a gateway, with default values."""

from typing import Any

from libs.common.routing.types import Ask, Release
from libs.common.upstream_answers.verdicts import Verdict


def made_ask(request_id: str = "r1", **given: Any) -> Ask:
    values: dict[str, Any] = {
        "request_id": request_id,
        "decision_id": f"d-{request_id}",
        "attempt": 1,
        "gateway_id": "gw",
        "pool_id": None,
        "session_id": None,
        "session": "",
        "model": "",
        "bound": (),
        "account_bound": False,
        "tried": (),
        "previous": "",
        "lease": b'{"id":"r1"',
        "draw": 0,
    }
    return Ask(**{**values, **given})


def made_release(resource_id: str, request_id: str = "r1", **given: Any) -> Release:
    """The end of a successful request."""
    values: dict[str, Any] = {
        "request_id": request_id,
        "gateway_id": "gw",
        "resource_id": resource_id,
        "verdict": Verdict(kind="ok"),
        "session": "",
        "learned": (),
        "model": None,
        "event": b"{}",
    }
    return Release(**{**values, **given})
