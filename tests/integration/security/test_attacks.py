"""A sample of the attacks of `make attack`, which runs thousands."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.attack import limits, mixups, smuggling, splitting
from tests.attack.scene import Attack, Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")
ANSWERS = 400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    async with scene(valkey_server, tmp_path_factory.mktemp("gateway")) as made:
        yield made


def held(attacks: list[Attack]) -> None:
    for attack in attacks:
        assert attack.breaches == [], attack.row


async def test_no_answer_is_anothers_on_kept_connections(at: Scene) -> None:
    held(await mixups.kept(at, ANSWERS))


async def test_no_answer_is_anothers_in_pipelines(at: Scene) -> None:
    held(await mixups.pipelined(at, ANSWERS))


async def test_no_event_is_anothers_on_sockets(at: Scene) -> None:
    held(await mixups.over_sockets(at, ANSWERS))


async def test_bytes_behind_an_answer_are_nobodys(at: Scene) -> None:
    held(await mixups.behind(at, ANSWERS))


async def test_an_answer_that_nobody_asked_for_is_nobodys(at: Scene) -> None:
    held(await mixups.unasked(at, 5))


async def test_no_request_is_smuggled(at: Scene) -> None:
    held(await smuggling.smuggle(at, every=11))


async def test_no_header_is_injected(at: Scene) -> None:
    held(await splitting.split(at, every=7))


async def test_too_much_of_anything_has_its_answer(at: Scene) -> None:
    held(await limits.exhaust(at, every=10))
