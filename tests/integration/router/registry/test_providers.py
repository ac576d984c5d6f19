"""The provider registry through all processes: registered at the router, used by a
gateway within seconds."""

from typing import Any

import pytest

from services.router.admin.schemas import registry as schemas
from tests.integration.router.registry.world import SOON_S, World, error
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestProviders:
    async def test_a_provider_serves_within_seconds(self, world: World) -> None:
        provider = await world.provider(name="Acme", pool_id="acme", weight=2)
        schemas.ProviderRow.model_validate(provider)
        assert provider["api_key_configured"] is True
        assert provider["resources"] == [provider["id"]]

        async def serves() -> bool:
            answer = await world.ask(x_pool_id="acme")
            return bool(answer.headers.get("x-proxy-resource-id") == provider["id"])

        await eventually(serves, SOON_S)
        assert world.received()[-1]["key"] == "sk-registered-c1"
        shown = (await world.resources())[provider["id"]]
        assert (shown["name"], shown["pool_id"], shown["weight"]) == ("Acme", "acme", 2)

    async def test_without_a_pool_it_serves_what_names_none(self, world: World) -> None:
        provider = await world.provider()
        await world.adopted()
        homes = {(await world.ask()).headers["x-proxy-resource-id"] for _ in range(20)}
        assert homes == {"openai-1", provider["id"]}

    async def test_several_keys_are_several_resources(self, world: World) -> None:
        keys = "sk-registered-c1, sk-registered-c2,sk-registered-c1"
        provider = await world.provider(api_key=keys, pool_id="acme")
        ids = [f"{provider['id']}-1", f"{provider['id']}-2"]
        assert provider["resources"] == ids
        await world.adopted()
        answers = [await world.ask(x_pool_id="acme") for _ in range(20)]
        assert {a.headers["x-proxy-resource-id"] for a in answers} == set(ids)

    async def test_a_variable_of_the_gateways_will_do(self, world: World) -> None:
        provider = await world.provider(
            api_key=None, credential_ref="env:PROVIDER_ACME_KEY", pool_id="acme"
        )
        assert provider["api_key_configured"] is False
        assert provider["credential_ref"] == "env:PROVIDER_ACME_KEY"
        await world.adopted()
        assert (await world.ask(x_pool_id="acme")).status_code == 200
        assert world.received()[-1]["key"] == "sk-in-the-environment"

    async def test_health_checks_it_and_learns_its_account(self, world: World) -> None:
        provider = await world.provider()

        async def checked() -> Any:
            found = (await world.resources()).get(provider["id"])
            return found and found["account_id"] != found["id"] and found

        found = await eventually(checked, SOON_S)
        assert found["account_id"] == "acct-c/proj_acct-c"
        assert found["health"] == "healthy"

    async def test_changes_take_effect(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        path = f"providers/{provider['id']}"
        changed = await world.admin("PATCH", path, api_key="sk-registered-d", weight=3)
        assert (changed["weight"], changed["pool_id"]) == (3, "acme")
        await world.adopted()
        assert (await world.ask(x_pool_id="acme")).status_code == 200
        assert world.received()[-1]["key"] == "sk-registered-d"
        assert await world.admin("GET", path) == changed

        await world.admin("PATCH", path, enabled=False)
        await world.adopted()
        assert error(await world.ask(x_pool_id="acme")) == (400, "unknown_pool")
        assert (await world.admin("GET", path))["resources"] == []

    async def test_deleting_ends_it(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        await world.adopted()
        gone = await world.admin("DELETE", f"providers/{provider['id']}")
        assert gone["id"] == provider["id"]
        await world.adopted()
        assert provider["id"] not in await world.resources()
        told = await world.admin("GET", f"providers/{provider['id']}", 404)
        assert told["error"]["code"] == "provider_not_found"

    @pytest.mark.parametrize(
        ("fields", "param", "says"),
        [
            pytest.param({"api_key": None}, "api_key", "needs an api_key", id="no key"),
            pytest.param({"id": "a b"}, "id", "pattern", id="an id with a space"),
            pytest.param({"id": "test"}, "id", "is reserved", id="reserved"),
            pytest.param({"base_url": None}, "base_url", "custom", id="no address"),
            pytest.param({"base_url": "ftp://x"}, "base_url", "http", id="no http"),
            pytest.param({"wire_api": "chat"}, "wire_api", "responses", id="wire api"),
            pytest.param({"auth_type": "basic"}, "auth_type", "bearer", id="auth"),
            pytest.param({"weight": -1}, "weight", "0.001", id="weight"),
            pytest.param({"pool_id": "@acme"}, "pool_id", "pattern", id="pool"),
            pytest.param({"api_key": "sk with"}, "api_key", "a space", id="no key"),
            pytest.param({"nonsense": 1}, "nonsense", "not permitted", id="unknown"),
            pytest.param(
                {"api_key": None, "credential_ref": "env:PROXY_ADMIN_TOKEN"},
                "credential_ref",
                "the proxy's own",
                id="our own secrets",
            ),
            pytest.param(
                {"credential_ref": "env:PROVIDER_ACME_KEY"},
                None,
                "not both",
                id="two sources",
            ),
        ],
    )
    async def test_nonsense_is_refused(
        self, world: World, fields: dict[str, Any], param: str | None, says: str
    ) -> None:
        given = {
            "id": "acme",
            "provider_type": "custom",
            "base_url": world.upstream.base_url,
            "api_key": "sk-registered-c1",
            **fields,
        }
        told = await world.admin(
            "POST", "providers", 400, **{k: v for k, v in given.items() if v}
        )
        assert told["error"]["param"] == param
        assert says in told["error"]["message"]

    async def test_a_stored_key_goes_to_no_other_address(self, world: World) -> None:
        provider = await world.provider()
        path, elsewhere = f"providers/{provider['id']}", "http://127.0.0.1:9/v1"
        told = await world.admin("PATCH", path, 400, base_url=elsewhere)
        assert "send it again" in told["error"]["message"]
        await world.admin("PATCH", path, base_url=elsewhere, api_key="sk-other")

    async def test_ids_of_resources_are_nobody_elses(self, world: World) -> None:
        provider = await world.provider()
        taken = await world.admin(
            "POST", "providers", 409, id=provider["id"], api_key="sk-registered-d"
        )
        assert taken["error"]["code"] == "provider_exists"
        for id_, keys in (("openai-1", "sk-x"), ("openai", "sk-x,sk-y")):
            taken = await world.admin("POST", "providers", 409, id=id_, api_key=keys)
            assert taken["error"]["code"] == "resource_id_taken"
        await world.admin("POST", "providers", 201, id="openai", api_key="sk-x")


class TestTests:
    async def test_a_key_is_tried_before_it_is_stored(self, world: World) -> None:
        found = await world.admin(
            "POST",
            "providers/test",
            base_url=world.upstream.base_url,
            api_key="sk-registered-c1,sk-wrong",
        )
        schemas.ProviderTested.model_validate(found)
        good, bad = found["results"]
        assert (found["ok"], good["ok"], bad["verdict"]) == (False, True, "refused")
        assert "gpt-5.5" in good["models"]
        assert "401" in bad["detail"]

    async def test_a_stored_one_by_its_id(self, world: World) -> None:
        provider = await world.provider()
        found = await world.admin("POST", "providers/test", id=provider["id"])
        assert found["ok"]
        assert [r["key"] for r in found["results"]] == [provider["id"]]

    async def test_nobody_there(self, world: World) -> None:
        found = await world.admin(
            "POST", "providers/test", base_url="http://127.0.0.1:9", api_key="sk-x"
        )
        assert found["results"][0]["verdict"] == "fault"
        assert "cannot connect" in found["results"][0]["detail"]

    async def test_a_variable_that_is_not_set(self, world: World) -> None:
        found = await world.admin(
            "POST",
            "providers/test",
            base_url=world.upstream.base_url,
            credential_ref="env:PROVIDER_NOT_SET",
        )
        assert found["results"][0]["verdict"] == "unresolved"
        assert "NOT_SET" in found["results"][0]["detail"]

    async def test_a_model_is_listed_or_not(self, world: World) -> None:
        provider = await world.provider()
        alias = await world.alias(provider, upstream_id="gpt-5.5")
        found = await world.admin("POST", "models/test", alias=alias)
        schemas.ModelTested.model_validate(found)
        assert found["ok"]
        found = await world.admin(
            "POST", "models/test", provider_id=provider["id"], upstream_id="gpt-none"
        )
        assert not found["ok"]
        assert "does not list gpt-none" in found["detail"]
