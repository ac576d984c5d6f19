"""The registry from SQL to the catalogue, also while SQL or Redis is unreachable."""

import asyncio

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from libs.common.contracts.catalogue import Alias, Resource
from libs.common.errors import StoreAway
from libs.common.providers.registry import Provider, Registry
from libs.common.providers.sealing import Sealer
from libs.common.runtime.lifecycle import end
from services.router.catalogue import Publisher, build_catalogue
from services.router.registry import READ_EVERY, RegistryReader
from tests.support.processes.waiting import eventually
from tests.unit.router.test_catalogue import Leadership, Library, resource

pytestmark = pytest.mark.asyncio
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
ALIAS = Alias(alias="fast", provider_id="acme", upstream_id="gpt")
OURS = (resource(1),)


def provider(id_: str = "acme", sealed: tuple[str, ...] = ()) -> Provider:
    return Provider(
        id=id_,
        name=id_,
        base_url="http://127.0.0.1:1/v1",
        sealed=sealed,
        credential_ref=None if sealed else "env:ACME",
        pool_id=None,
        account_id=None,
        weight=1.0,
        enabled=True,
    )


class Rows:
    """SQL's rows; can be made unreachable."""

    def __init__(self, *providers: Provider) -> None:
        self.registered = Registry(providers, (ALIAS,))
        self.away = False
        self.read = 0

    async def registry(self) -> Registry:
        if self.away:
            raise StoreAway
        self.read += 1
        return self.registered

    async def reseal(self, id_: str, old: str, new: str) -> bool:
        (before,) = self.registered.providers
        if ",".join(before.sealed) != old:
            return False
        self.registered = Registry((provider(id_, tuple(new.split(","))),), (ALIAS,))
        return True


class World:
    def __init__(self, *providers: Provider, keys: tuple[str, ...] = (NEW,)) -> None:
        self.rows = Rows(*providers)
        self.reader = self.another(keys)

    def another(self, keys: tuple[str, ...] = (NEW,)) -> RegistryReader:
        return RegistryReader(self.rows, OURS, Sealer(keys), {})

    def ids(self, reader: RegistryReader | None = None) -> list[str]:
        parts = (reader or self.reader).parts
        assert parts is not None
        return [resource.id for resource in parts.resources]


async def test_environment_and_registry_are_one_catalogue() -> None:
    world = World(provider())
    await world.reader.look()
    assert world.ids() == ["openai-1", "acme"]
    assert world.reader.parts is not None
    assert world.reader.parts.aliases == (ALIAS,)


async def test_sql_is_asked_when_something_changed_and_now_and_then() -> None:
    world = World(provider())
    for _ in range(READ_EVERY):
        await world.reader.look()
    assert world.rows.read == 1
    await world.reader.look()
    assert world.rows.read == 2
    await world.reader.changed()
    assert world.rows.read == 3


async def test_without_sql_what_was_read_stays() -> None:
    world = World(provider())
    await world.reader.look()
    world.rows.away = True
    with capture_logs() as logs:
        for _ in range(READ_EVERY + 3):
            await world.reader.look()
    assert world.ids() == ["openai-1", "acme"]
    assert [entry["action"] for entry in logs] == ["registry_failed"]
    await world.reader.changed()
    world.rows.away = False
    world.rows.registered = Registry()
    await world.reader.look()
    assert world.ids() == ["openai-1"]


async def test_a_change_is_published_at_once() -> None:
    world = World(provider())
    published = []

    async def publish() -> None:
        published.append(world.ids())

    world.reader.on_change = publish
    await world.reader.changed()
    await world.reader.changed()  # nothing new
    assert published == [["openai-1", "acme"]]


async def test_an_id_that_is_taken_is_said() -> None:
    world = World(provider("openai-1"))
    with capture_logs() as logs:
        await world.reader.look()
        await world.reader.changed()
    assert world.ids() == ["openai-1"]
    said = [entry for entry in logs if entry["action"] == "resource_ids_taken"]
    assert [entry["resources"] for entry in said] == [("openai-1",)]


async def test_what_an_older_key_sealed_is_sealed_anew_once() -> None:
    old = Sealer([OLD]).seal("sk-secret")
    world = World(provider(sealed=(old,)), keys=(NEW, OLD))
    await world.reader.look()
    ((token,),) = (p.sealed for p in world.rows.registered.providers)
    assert Sealer([NEW]).open(token) == "sk-secret"
    assert world.reader.parts is not None
    assert world.reader.parts.resources[-1].credential == f"sealed:{token}"
    world.rows.registered = Registry((provider(sealed=(old,)),), (ALIAS,))
    await world.reader.changed()
    assert world.rows.registered.providers[0].sealed == (old,)


async def test_one_that_cannot_be_opened_does_not_hold_up_the_others() -> None:
    lost = Sealer([OLD]).seal("sk-secret")
    world = World(provider(sealed=(lost,)))
    await world.reader.look()
    assert world.ids() == ["openai-1", "acme"]


class TestPublisher:
    def publisher(
        self, world: World, library: Library, *, leads: bool = True
    ) -> Publisher:
        ours = build_catalogue(OURS)
        return Publisher(library, ours, Leadership(leads), world.reader)

    def published(self, library: Library) -> list[str]:
        assert library.published is not None
        return [r.id for r in library.published.resources]

    async def test_what_is_registered_is_published(self) -> None:
        world, library = World(provider()), Library()
        await world.reader.look()
        await self.publisher(world, library).ensure()
        assert self.published(library) == ["openai-1", "acme"]
        assert library.published is not None
        assert library.published.aliases == (ALIAS,)

    async def test_before_sql_was_read_the_published_stays(self) -> None:
        world, library = World(provider()), Library()
        theirs = Resource(
            **{**resource(2).model_dump(), "id": "acme", "provider_id": "acme"}
        )
        gone = resource(3)  # was in the environment of the router before
        library.published = build_catalogue([*OURS, theirs, gone], [ALIAS])
        library.version = library.published.version
        await self.publisher(world, library).ensure()
        assert self.published(library) == ["openai-1", "acme"]
        assert library.published.aliases == (ALIAS,)

    async def test_an_empty_redis_without_sql_gets_the_environments(self) -> None:
        world, library = World(provider()), Library()
        world.rows.away = True
        await world.reader.look()
        await self.publisher(world, library).ensure()
        assert self.published(library) == ["openai-1"]

    async def test_after_redis_was_emptied_without_sql_all_is_back(self) -> None:
        world, library = World(provider()), Library()
        publisher = self.publisher(world, library)
        await world.reader.look()
        await publisher.ensure()
        world.rows.away = True
        await world.reader.look()
        library.version = library.published = None
        await publisher.ensure()
        assert self.published(library) == ["openai-1", "acme"]

    async def test_who_does_not_lead_knows_it_and_publishes_nothing(self) -> None:
        world, library = World(provider()), Library()
        publisher = self.publisher(world, library, leads=False)
        await world.reader.look()
        await publisher.renew()
        assert library.published is None
        assert [r.id for r in publisher.catalogue.resources] == ["openai-1", "acme"]


async def test_the_loop_looks_again_and_again() -> None:
    world = World(provider())
    running = asyncio.create_task(world.reader.run())

    async def read() -> bool:
        return world.reader.parts is not None

    await eventually(read)
    await end([running])
    assert running.cancelled()
