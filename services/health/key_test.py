"""Keys that are not in the catalogue (yet), asked about by the admin API: does the
upstream take them, and which models has it for them?"""

import asyncio
import json
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import httpx
import msgspec

from libs.common.contracts.verdicts import Verdict
from libs.common.errors import ProxyError
from libs.common.providers.credentials import Credentials
from libs.common.providers.key_echoes import SentKey
from services.health.verdict import of_answer, of_error, timed_out

MOST_MODELS = 200
_DETAILS = {
    "ok": "the key works",
    "refused": "the upstream refuses the key",
    "exhausted": "the key's account has no money left",
    "limited": "the key is rate limited",
}


class Wanted(msgspec.Struct):
    """What the router orders: pairs of a name and where the key is."""

    base_url: str
    keys: list[tuple[str, str]]
    model: str | None = None


class Examiner:
    """Asks upstreams for their models."""

    def __init__(
        self, client: httpx.AsyncClient, credentials: Credentials, timeout_s: float
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._timeout_s = timeout_s

    async def examine(self, order: str) -> str:
        """The answer to an order, both JSON."""
        wanted = msgspec.json.decode(order, type=Wanted)
        found = await asyncio.gather(*(self._key(wanted, *key) for key in wanted.keys))
        return json.dumps(found)

    async def _key(self, wanted: Wanted, name: str, credential: str) -> dict[str, Any]:
        try:
            key = self._credentials.resolve(credential, wanted.base_url)
        except ProxyError as error:
            return _said(name, "unresolved", str(error))
        verdict, models = await self._ask(f"{wanted.base_url}/models", SentKey(key))
        kind = verdict.kind
        detail = _DETAILS.get(kind, verdict.cause)
        if kind != "ok" and verdict.cause not in detail:
            detail = f"{detail} ({verdict.cause})"
        said = _said(name, kind, detail, verdict.latency_ms)
        said["models"] = list(models[:MOST_MODELS])
        if wanted.model is not None:
            said["lists_model"] = wanted.model in models
        return said

    async def _ask(self, url: str, sent: SentKey) -> tuple[Verdict, Sequence[str]]:
        started = perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.get(
                    url, headers={"authorization": f"Bearer {sent.text}"}
                )
        except TimeoutError:
            return timed_out(), ()
        except httpx.HTTPError as error:
            return of_error(error), ()
        verdict = of_answer(answer, sent, (perf_counter() - started) * 1000)
        if verdict.kind == "neutral":
            cause = f"{answer.status_code}: is the base_url right?"
            verdict = msgspec.structs.replace(verdict, cause=cause)
        return verdict, _models(answer, sent) if verdict.kind == "ok" else ()


def _said(
    name: str, kind: str, detail: str, latency_ms: float | None = None
) -> dict[str, Any]:
    return {
        "key": name,
        "ok": kind == "ok",
        "verdict": kind,
        "detail": detail,
        "latency_ms": latency_ms,
        "models": [],
        "lists_model": None,
    }


def _models(answer: httpx.Response, sent: SentKey) -> Sequence[str]:
    """None of an upstream that lists them in another way."""
    try:
        return [sent.hidden(str(model["id"])) for model in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return ()
