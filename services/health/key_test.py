"""Tests keys for the admin API before they are in the catalogue: whether the upstream
accepts them, and which models it lists."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import msgspec

from libs.common.errors import ProxyError
from libs.common.providers.credentials import Credentials
from libs.common.providers.key_echoes import SentKey
from libs.common.providers.key_headers import BEARER, key_header
from libs.common.upstream_answers.verdicts import Verdict
from services.health.verdict import ask

MOST_MODELS = 200
_DETAILS = {
    "ok": "the key works",
    "refused": "the upstream rejects the key",
    "exhausted": "the account of the key has no credit left",
    "limited": "the key is rate limited",
}


class KeyTest(msgspec.Struct):
    """An order: the keys to test, as pairs of name and credential."""

    base_url: str
    keys: list[tuple[str, str]]
    model: str | None = None
    auth_type: str = BEARER


class KeyTester:
    """Tests keys by listing the models of their upstream."""

    def __init__(
        self, client: httpx.AsyncClient, credentials: Credentials, timeout_s: float
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._timeout_s = timeout_s

    async def test(self, order: str) -> str:
        """Run a key test; the order and the result are JSON."""
        wanted = msgspec.json.decode(order, type=KeyTest)
        results = await asyncio.gather(
            *(self._key(wanted, *key) for key in wanted.keys)
        )
        return json.dumps(results)

    async def _key(self, wanted: KeyTest, name: str, credential: str) -> dict[str, Any]:
        try:
            key = self._credentials.resolve(credential, wanted.base_url)
        except ProxyError as error:
            return _result(name, "unresolved", str(error))
        verdict, models = await self._ask(wanted, SentKey(key))
        kind = verdict.kind
        detail = _DETAILS.get(kind, verdict.cause)
        if kind != "ok" and verdict.cause not in detail:
            detail = f"{detail} ({verdict.cause})"
        result = _result(name, kind, detail, verdict.latency_ms)
        result["models"] = list(models[:MOST_MODELS])
        if wanted.model is not None:
            result["lists_model"] = wanted.model in models
        return result

    async def _ask(
        self, wanted: KeyTest, sent: SentKey
    ) -> tuple[Verdict, Sequence[str]]:
        url, header = (
            f"{wanted.base_url}/models",
            key_header(wanted.auth_type, sent.text),
        )
        answer, verdict = await ask(self._client, url, header, sent, self._timeout_s)
        if answer is None:
            return verdict, ()
        if verdict.kind == "neutral":
            cause = f"{answer.status_code}: is the base_url right?"
            verdict = replace(verdict, cause=cause)
        return verdict, _models(answer, sent) if verdict.kind == "ok" else ()


def _result(
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
    """Return the ids of the listed models; empty if the format is unknown."""
    try:
        return [sent.hidden(str(model["id"])) for model in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return ()
