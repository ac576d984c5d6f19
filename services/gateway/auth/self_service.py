"""`GET /v1/proxy/me`: what the holder of a proxy key may know of it. Shows nothing of
other keys, and never the secret."""

import asyncio
from typing import Any

import msgspec

from libs.common.proxy_keys import Principal
from services.gateway import errors, event_log
from services.gateway.auth.access_control import AccessControl
from services.gateway.auth.key_usage import KeyUsage, iso
from services.gateway.auth.policy import ME
from services.gateway.content.headers import JSON_TYPE
from services.gateway.errors import Problem
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request

PATH = b"/v1" + ME
_HEADERS = [JSON_TYPE, (b"cache-control", b"no-store")]


def asks_about_itself(request: Request) -> bool:
    return request.path == PATH and request.method in ("GET", "HEAD")


class SelfService:
    def __init__(self, access: AccessControl) -> None:
        self._access = access

    async def serve(self, request: Request, connection: Connection) -> None:
        try:
            body = await self._told(request, connection.peer)
            connection.writer.send_whole(200, _HEADERS, body)
        except Problem as problem:
            event_log.refused(problem.ledger_code, problem.status)
            headers = [*_HEADERS, *problem.headers]
            connection.writer.send_whole(problem.status, headers, problem.body())
        except asyncio.CancelledError:
            if not connection.gone:
                raise
        finally:
            connection.over()

    async def _told(self, request: Request, peer: object) -> bytes:
        access = self._access
        principal = await access.enter(request.headers)
        if principal is None:
            raise errors.proxy_key_required()
        access.check_caller(principal, ME, peer, request.headers)
        usage = await access.usage(principal)
        return msgspec.json.encode(described(principal, usage))


def described(principal: Principal, usage: KeyUsage | None) -> dict[str, Any]:
    """`usage`: None while it is unknown."""
    requests = tokens = budgets = None
    expires_ms = principal.expires_at_ms
    if usage is not None:
        requests, tokens, budgets = usage.requests, usage.tokens, usage.budgets
    return {
        "object": "proxy_key",
        "id": principal.id,
        "name": principal.name,
        "prefix": principal.prefix,
        "team_id": principal.team_id,
        "pool_id": principal.pool_id,
        "pools": principal.pools,
        "expires_at": None if expires_ms is None else iso(expires_ms),
        "queue_weight": principal.queue_weight,
        "policies": principal.policies,
        "limits": {
            "requests_per_minute": _limit(principal.requests_per_minute, requests),
            "tokens_per_minute": _limit(principal.tokens_per_minute, tokens),
        },
        "budgets": budgets,
    }


def _limit(limit: int | None, used: int | None) -> dict[str, int | None] | None:
    if limit is None:
        return None
    remaining = None if used is None else max(limit - used, 0)
    return {"limit": limit, "used": used, "remaining": remaining}
