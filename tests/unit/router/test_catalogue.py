"""The catalogue, and publishing it to Redis."""

import asyncio

import pytest

from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.errors import NoCatalogue, RedisAway
from services.router.catalogue import COMPARE_EVERY, Publisher, build_catalogue
from tests.support.processes.waiting import eventually


def resource(number: int = 1, weight: float = 1) -> Resource:
    return Resource(
        id=f"openai-{number}",
        name=f"openai-{number}",
        pool_id="openai-default",
        account_id=f"openai-{number}",
        weight=weight,
        base_url="https://api.openai.com/v1",
        credential=f"env:OPENAI_API_KEY_{number}",
    )


def test_equal_content_has_an_equal_version() -> None:
    first = build_catalogue([resource(1), resource(2)])
    again = build_catalogue(iter((resource(1), resource(2))))
    assert first == again
    assert len(first.version) == 16


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([], id="none"),
        pytest.param([resource(1)], id="one less"),
        pytest.param([resource(2), resource(1)], id="another order"),
        pytest.param([resource(1), resource(2, weight=2)], id="another weight"),
    ],
)
def test_other_content_has_another_version(other: list[Resource]) -> None:
    catalogue = build_catalogue([resource(1), resource(2)])
    assert build_catalogue(other).version != catalogue.version


class Library:
    """A Redis that can be emptied, be unreachable or refuse."""

    def __init__(self) -> None:
        self.loaded = False
        self.version: str | None = None
        self.published: Catalogue | None = None
        self.events: list[str] = []
        self.error: Exception | None = None
        self.learned: dict[str, str] = {}
        self.older = False  # does it hold an older version's functions?
        self.looks = 0  # at the whole library

    async def learned_accounts(self) -> dict[str, str]:
        return self.learned

    async def load_library(self) -> None:
        self.looks += 1
        if self.error:
            raise self.error
        self.loaded = True
        self.older = False

    async def library_is_older(self) -> bool:
        self.looks += 1
        return self.older

    async def catalogue_version(self) -> str | None:
        return self.version

    async def catalogue(self) -> Catalogue:
        if self.published is None:
            raise NoCatalogue
        return self.published

    async def publish(self, catalogue: Catalogue, event_id: str) -> bool:
        if not self.loaded:
            raise NoCatalogue
        self.published = catalogue
        if self.version == catalogue.version:
            return False
        self.version = catalogue.version
        self.accounts = [r.account_id for r in catalogue.resources]
        self.events.append(event_id)
        return True


class Leadership:
    def __init__(self, leads: bool = True) -> None:
        self.leads = leads

    async def hold(self) -> bool:
        return self.leads

    async def take(self) -> None:
        self.leads = True


@pytest.mark.asyncio
async def test_only_the_leader_publishes() -> None:
    library, leadership = Library(), Leadership(leads=False)
    publisher = Publisher(library, build_catalogue([resource()]), leadership)
    with pytest.raises(NoCatalogue):
        await publisher.ensure()
    library.version = "another router's"
    await publisher.ensure()
    assert library.version == "another router's"
    leadership.leads = True
    await publisher.ensure()
    assert library.version != "another router's"


@pytest.mark.asyncio
async def test_the_newest_version_takes_the_lead() -> None:
    library, leadership = Library(), Leadership(leads=False)
    library.version, library.older = "an older router's", True
    publisher = Publisher(library, build_catalogue([resource()]), leadership)
    await publisher.ensure()
    assert (leadership.leads, library.loaded) == (True, True)
    assert library.version != "an older router's"


@pytest.mark.asyncio
async def test_accounts_that_upstreams_name_are_published_and_kept() -> None:
    named = resource(2).model_copy(update={"account_id": "configured"})
    unnamed = resource(1).model_copy(update={"account_id": resource(1).id})
    library = Library()
    publisher = Publisher(library, build_catalogue([unnamed, named]), Leadership())
    library.learned = dict.fromkeys((unnamed.id, named.id), "org/project")
    await publisher.ensure()
    assert library.accounts == ["org/project", "configured"]
    library.learned, library.version = {}, None  # Redis was emptied
    await publisher.ensure()
    assert library.accounts == ["org/project", "configured"]


@pytest.mark.asyncio
async def test_publishing_again_changes_nothing() -> None:
    library = Library()
    publisher = Publisher(library, build_catalogue([resource()]), Leadership())
    await publisher.ensure()
    await publisher.ensure()
    assert len(library.events) == 1


@pytest.mark.asyncio
async def test_what_was_emptied_is_filled_again_with_a_new_event() -> None:
    library = Library()
    publisher = Publisher(library, build_catalogue([resource()]), Leadership())
    await publisher.ensure()
    library.loaded, library.version = False, None
    await publisher.ensure()
    assert len(set(library.events)) == 2
    assert library.events == sorted(library.events)  # ids are ordered by time


@pytest.mark.asyncio
async def test_functions_that_were_lost_are_loaded_at_once() -> None:
    library = Library()
    publisher = Publisher(library, build_catalogue([resource()]), Leadership())
    await publisher.renew()
    library.loaded, library.version = False, None
    await publisher.renew()
    assert (publisher.published, library.loaded) == (True, True)


@pytest.mark.asyncio
@pytest.mark.parametrize("leads", [True, False])
async def test_the_library_is_compared_in_some_rounds_only(leads: bool) -> None:
    library = Library()
    library.version = "some router's"
    publisher = Publisher(library, build_catalogue([resource()]), Leadership(leads))
    for _ in range(2 * COMPARE_EVERY):
        await publisher.renew()
    assert library.looks == 2


@pytest.mark.asyncio
async def test_a_new_leader_compares_the_library_at_once() -> None:
    library, leadership = Library(), Leadership(leads=False)
    library.version = "another router's"
    publisher = Publisher(library, build_catalogue([resource()]), leadership)
    await publisher.renew()
    leadership.leads = True
    await publisher.renew()
    assert library.looks == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(RedisAway(), id="away"),
        pytest.param(ValueError("OOM command not allowed"), id="refuses writes"),
    ],
)
async def test_the_loop_outlives_a_redis_that_fails(error: Exception) -> None:
    library = Library()
    library.error = error
    publisher = Publisher(library, build_catalogue([resource()]), Leadership())
    running = asyncio.create_task(publisher.run())
    await asyncio.sleep(0)
    assert not publisher.published
    library.error = None

    async def published() -> bool:
        return publisher.published

    await eventually(published)
    running.cancel()
