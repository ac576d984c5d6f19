"""The OpenAPI document of declared operations. That the router's own document agrees
with its routes is tested in test_app.py."""

from typing import Any

from pydantic import Field

from libs.common.contracts.catalogue import Frozen
from services.router.api.document import document, open_api
from services.router.api.operation import EVENTS, Operation
from tests.support.values.admin import client


class Part(Frozen):
    weight: float = 1


class ThingAsk(Frozen):
    """A new thing."""

    part: Part


class Thing(Frozen):
    part: Part | None


class Which(Frozen):
    limit: int = Field(100, ge=1, description="How many.")


class Things:
    @Operation(returns=Thing, status=201, problems=(409,))
    async def on_post(self, body: ThingAsk) -> Any:
        """Add a thing."""

    @Operation(returns=Thing)
    async def on_get(self, query: Which) -> Any:
        """List things."""


class Events:
    @Operation(returns=Thing, media=EVENTS)
    async def on_get(self) -> Any:
        """Things as they come."""


class Metrics:
    @Operation(media="text/plain; version=1")
    async def on_get(self, alias: str) -> Any:
        """Metrics."""


RESOURCES = {
    "/admin/things": Things(),
    "/admin/events": Events(),
    "/metrics/{alias:path}": Metrics(),
    "/internal/things": Things(),
}
DOCUMENT = document(RESOURCES)
PATHS = DOCUMENT["paths"]


def ref(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def test_paths_are_those_of_the_resources_and_of_gateways() -> None:
    described = {"/admin/things", "/admin/events", "/metrics/{alias}"}
    assert set(PATHS) == described | {"/v1/responses", "/v1/{path}"}
    assert set(PATHS["/admin/things"]) == {"get", "post"}


def test_tags_are_the_parts_of_the_api() -> None:
    tags = {path: each["tags"] for path, m in PATHS.items() for each in m.values()}
    assert tags["/admin/things"] == ["things"]
    assert tags["/v1/{path}"] == ["responses"]
    assert tags["/metrics/{alias}"] == ["probes"]


def test_a_body_and_its_response() -> None:
    post = PATHS["/admin/things"]["post"]
    assert post["summary"] == "Add a thing."
    assert post["requestBody"] == {
        "required": True,
        "content": {"application/json": ref("ThingAsk")},
    }
    assert post["responses"]["201"]["content"] == {"application/json": ref("Thing")}


def test_errors_have_the_envelope() -> None:
    responses = PATHS["/admin/things"]["post"]["responses"]
    assert list(responses) == ["201", "400", "401", "403", "409", "413", "415", "503"]
    for status in list(responses)[1:]:
        assert responses[status]["content"] == {"application/json": ref("Envelope")}
        assert responses[status]["description"]
    reads = PATHS["/admin/things"]["get"]["responses"]
    assert list(reads) == ["200", "400", "401", "403", "503"]
    assert list(PATHS["/metrics/{alias}"]["get"]["responses"]) == ["200"]


def test_parameters() -> None:
    assert PATHS["/admin/things"]["get"]["parameters"] == [
        {
            "name": "limit",
            "in": "query",
            "required": False,
            "description": "How many.",
            "schema": {"type": "integer", "minimum": 1, "default": 100},
            "allowEmptyValue": True,
        }
    ]
    (alias,) = PATHS["/metrics/{alias}"]["get"]["parameters"]
    assert (alias["name"], alias["in"], alias["required"]) == ("alias", "path", True)
    assert "slashes" in alias["description"]


def test_other_media_types() -> None:
    events = PATHS["/admin/events"]["get"]["responses"]["200"]
    described = events["content"]["text/event-stream"]["schema"]
    assert described["properties"]["data"]["contentSchema"] == ref("Thing")["schema"]
    assert "content" not in PATHS["/metrics/{alias}"]["get"]["responses"]["200"]


def test_only_admin_operations_need_the_token() -> None:
    for path, methods in PATHS.items():
        for described in methods.values():
            assert ("security" in described) == path.startswith("/admin")


def test_every_model_is_described_once() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(schemas) == {"Envelope", "ErrorBody", "Part", "Thing", "ThingAsk"}
    assert schemas["ThingAsk"]["description"] == "A new thing."


def test_it_is_served() -> None:
    api = client({"/openapi.json": open_api(DOCUMENT)})
    assert api.simulate_get("/openapi.json").json == DOCUMENT
