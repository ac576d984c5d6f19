"""The provider registry outlasts restarts and losses, and stores its keys nowhere in
plain text."""

import pytest

from tests.integration.router.registry.world import FERNET, SOON_S, THEIRS, World
from tests.support.databases.redis_dump import dump
from tests.support.databases.sql import fetch
from tests.support.processes.waiting import eventually
from tests.support.processes.written import written

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestOutlasting:
    async def test_a_change_at_a_router_that_does_not_lead(self, world: World) -> None:
        second = world.fleet.router.twin(world.folder / "second-router.log")
        try:
            await second.ready()
            given = {"id": "elsewhere", "api_key": "sk-registered-c1"}
            answer = await world.http.post(
                f"{second.origin}/admin/providers", json=given
            )
            assert answer.status_code == 201, answer.text

            async def published() -> bool:
                return "elsewhere" in await world.resources()

            await eventually(published, SOON_S)
        finally:
            await second.end()

    async def test_an_emptied_redis(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        alias = await world.alias(provider)
        await world.redis.flushall()
        await world.redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]

        async def back() -> bool:
            return provider["id"] in await world.resources()

        await eventually(back, SOON_S)

        async def serves() -> bool:
            return (await world.ask(alias)).status_code == 200

        await eventually(serves, SOON_S)

    async def test_a_router_that_starts_anew(self, world: World) -> None:
        provider = await world.provider(pool_id="acme", account_id="acct-c")
        await world.adopted()
        version = await world.redis.get("{rpx}:catalogue:version")
        await world.fleet.router.end()
        world.fleet.router.start_anew()
        await world.fleet.router.ready()

        async def there() -> bool:
            state = await world.http.get(f"{world.fleet.router.origin}/readyz")
            return state.status_code == 200

        await eventually(there, SOON_S)
        assert provider["id"] in await world.resources()
        # Its keys were neither sealed again nor lost on the way.
        assert await world.redis.get("{rpx}:catalogue:version") == version

    async def test_each_change_is_an_event(self, world: World) -> None:
        provider = await world.provider()
        query = "SELECT data FROM events WHERE kind = 'registry'"

        async def stored() -> bool:
            rows = [str(row[0]) for row in fetch(world.fleet.database, query)]
            return any(provider["id"] in row for row in rows)

        await eventually(stored, SOON_S)


class TestSecrecy:
    async def test_no_key_is_anywhere(self, world: World) -> None:
        keys = "sk-registered-c1,sk-registered-d"
        provider = await world.provider(api_key=keys)
        alias = await world.alias(provider)
        answer = await world.ask(alias)
        await world.row(answer)
        path = f"providers/{provider['id']}"
        await world.admin("PATCH", path, 400, api_key="sk-registered c2")
        await world.admin("POST", "providers/test", api_key="sk-registered-wrong")
        await world.admin("GET", path)
        places = {
            "logs": written(world.folder, "*.log"),
            "sql": written(world.folder, "proxy.sqlite3*"),
            "all files, with journals": written(world.folder),
            "redis": await dump(world.redis),
            "answers": "".join(world.said).encode(),
        }
        for member in (*world.fleet.gateways, world.fleet.router):
            metrics = await world.http.get(f"{member.origin}/metrics")
            places[f"metrics of {member.origin}"] = metrics.content
        assert b"gAAAA" in places["redis"]  # which shows that the dump is not empty
        assert b"gAAAA" in places["sql"]
        assert b"gAAAA" not in places["answers"]
        secrets = [*THEIRS, FERNET, "sk-registered"]
        found = [
            (secret, name)
            for secret in secrets
            for name, held in places.items()
            if secret.encode() in held
        ]
        assert found == []
