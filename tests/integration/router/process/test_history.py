"""Stored requests, and where a request would go."""

from typing import Any

import pytest

from services.router.admin.schemas import explain as explain_schemas
from tests.integration.router.process.running import (
    MINTED,
    REFUSED,
    RESOURCES,
    STREAM,
    Standing,
    error,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestHistory:
    async def test_pages_continue_by_cursor(self, proxy: Standing) -> None:
        seen: list[str] = []
        cursor = ""
        for _ in range(3):
            answer = await proxy.http.get(
                "/admin/requests", params={"limit": 1, "cursor": cursor}
            )
            page = answer.json()
            seen += [row["id"] for row in page["data"]]
            cursor = page["next_cursor"] or ""
        assert (seen, cursor) == (["req-2", "req-1", "req-0"], "")

    @pytest.mark.parametrize(
        ("path", "key", "expected"),
        [
            ("requests?session_id=session-0", "id", ["req-2", "req-0"]),
            ("requests?resource_id=openai-2", "id", ["req-1"]),
            ("requests?request_id=req-0", "id", ["req-0"]),
            ("decisions?request_id=req-2", "id", ["decision-2-2", "decision-2-1"]),
            ("sessions", "id", ["session-0", "session-1"]),
            ("sessions?session_id=session-1", "requests", [1]),
            ("requests?session_id=nobody", "id", []),
            ("requests?status=5xx", "id", []),
            (
                (
                    "requests?outcome=completed&from=2023-11-14T22:13:21.123Z"
                    "&to=2023-11-14T22:13:22.123Z"
                ),
                "id",
                ["req-1"],
            ),
            ("decisions?reason=panic", "id", []),
        ],
    )
    async def test_filters(
        self, proxy: Standing, path: str, key: str, expected: list[Any]
    ) -> None:
        answer = await proxy.http.get(f"/admin/{path}")
        assert [row[key] for row in answer.json()["data"]] == expected

    @pytest.mark.parametrize("table", ["sessions", "requests", "decisions"])
    async def test_rows_have_the_columns_that_openapi_tells_of(
        self, proxy: Standing, table: str
    ) -> None:
        rows = (await proxy.http.get(f"/admin/{table}")).json()["data"]
        document = (await proxy.http.get("/openapi.json")).json()
        name = f"{table.removesuffix('s').title()}Row"
        described = document["components"]["schemas"][name]["properties"]
        assert set(rows[0]) == set(described)

    async def test_one_request_with_its_decisions(self, proxy: Standing) -> None:
        row = (await proxy.http.get("/admin/requests/req-2")).json()
        assert row["created_at"] == "2023-11-14T22:13:22.123Z"
        assert [d["attempt"] for d in row["decisions"]] == [1, 2]
        passed_over = row["decisions"][0]["candidates"][1]
        assert passed_over["refused"] == "cooling down"
        assert passed_over["why"] == {"code": "cooling_down", "until_ms": None}
        assert (row["timeline"]["received_ms"], row["cost_usd"]) == (0, None)

    async def test_an_unknown_request(self, proxy: Standing) -> None:
        answer = await proxy.http.get("/admin/requests/nobody")
        assert (answer.status_code, error(answer)) == (404, "request_not_found")


class TestExplain:
    async def explain(self, proxy: Standing, **asked: Any) -> Any:
        answer = await proxy.http.post("/admin/route/explain", json=asked)
        assert answer.status_code == 200, answer.text
        explain_schemas.Explained.model_validate(answer.json())
        return answer.json()

    async def keys(self, proxy: Standing) -> list[bytes]:
        """Of Redis, without those of the router's leaderships, which come and go."""
        found: Any = await proxy.redis.keys()
        return sorted(key for key in found if b":leader:" not in key)

    async def test_it_tells_where_and_why_without_effects(
        self, proxy: Standing
    ) -> None:
        await proxy.routing.verdict("openai-2", REFUSED)
        before = await proxy.redis.xlen(STREAM), await self.keys(proxy)
        said = await self.explain(
            proxy, headers={"X-Session-ID": "s"}, body={"model": "gpt-5.5"}
        )
        assert said["status"] == "ok"
        assert said["reason"] == "weighted_least_connections"
        assert said["resource_id"] in RESOURCES
        assert said["hints"]["session_id"] == "s"
        refused = {c["resource"]: c["refused"] for c in said["candidates"]}
        assert refused == dict.fromkeys(RESOURCES) | {
            "openai-2": "key refused by the upstream"
        }
        assert await proxy.routing.in_flight() == 0
        assert before == (await proxy.redis.xlen(STREAM), await self.keys(proxy))

    async def test_ids_are_looked_for_in_sql(self, proxy: Standing) -> None:
        said = await self.explain(
            proxy, body={"model": "m", "previous_response_id": MINTED}
        )
        assert said["looked_up_in_sql"]
        assert (said["resource_id"], said["reason"]) == (
            "openai-3",
            "response_affinity",
        )
        others = {
            c["refused"] for c in said["candidates"] if c["resource"] != "openai-3"
        }
        assert others == {"another account"}

    async def test_an_owner_that_is_gone(self, proxy: Standing) -> None:
        await proxy.routing.verdict("openai-3", REFUSED)
        said = await self.explain(proxy, method="GET", path=f"/v1/responses/{MINTED}")
        assert (said["status"], said["resource_id"]) == ("owner_gone", None)

    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            pytest.param(b"{", "invalid_request", id="no JSON"),
            pytest.param(b'{"method":"BREW"}', "invalid_request", id="no method"),
            pytest.param(b'{"headers":{"a":1}}', "invalid_request", id="no header"),
            pytest.param(b"x" * 1_100_000, "body_too_large", id="too large"),
            pytest.param(
                b'{"headers":{"x-pool-id":"nope"}}', "unknown_pool", id="no pool"
            ),
        ],
    )
    async def test_nonsense(self, proxy: Standing, asked: bytes, code: str) -> None:
        answer = await proxy.http.post(
            "/admin/route/explain",
            content=asked,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == (413 if code == "body_too_large" else 400)
        assert error(answer) == code
