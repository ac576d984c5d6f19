"""The gateway's copy of the catalogue."""

import asyncio
from typing import Any, cast

import pytest

from libs.common.contracts.catalogue import Alias, Catalogue
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.providers.credentials import Credentials
from libs.common.providers.sealing import Sealer
from libs.common.routing.functions import RoutingFunctions
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.upstream.origin import Origin
from tests.support.memory.clock import timeless
from tests.support.memory.twin import Twin, resource
from tests.support.values.rules import RULES

KEYS = {"KEY_A": "sk-a", "KEY_B": "sk-b"}


class Counting(Twin):
    reads = 0
    missing: NoCatalogue | None = None

    async def require_functions(self) -> None:
        if self.missing:
            raise self.missing

    async def catalogue(self) -> Catalogue:
        self.reads += 1
        await asyncio.sleep(0)
        return await super().catalogue()


def read(
    *resources: Any, aliases: tuple[Alias, ...] = ()
) -> tuple[GatewayCatalogue, Counting]:
    twin = Counting(*resources, aliases=aliases)
    routing = cast(RoutingFunctions, twin)
    return GatewayCatalogue(routing, Credentials(KEYS, Sealer(()), RULES)), twin


@pytest.mark.parametrize(
    ("url", "origin", "host", "path"),
    [
        ("https://api.test/v1", Origin("https", "api.test", 443), b"api.test", b"/v1"),
        ("http://api.test", Origin("http", "api.test", 80), b"api.test", b""),
        (
            "https://api.test:8443/a/b/", Origin("https", "api.test", 8443),
            b"api.test:8443", b"/a/b",
        ),
        ("http://[fd00::1]:81/v1", Origin("http", "fd00::1", 81), b"[fd00::1]:81",
         b"/v1"),
    ],
)  # fmt: skip
@timeless
async def test_a_resource_is_ready_to_be_sent_to(
    url: str, origin: Origin, host: bytes, path: bytes
) -> None:
    catalogue, _ = read(resource("a", base_url=url))
    await catalogue.refresh()
    target = catalogue.targets["a"]
    assert (target.origin, target.host, target.path) == (origin, host, path)
    assert target.authorization == b"authorization: Bearer sk-a"


@timeless
async def test_the_header_with_the_key_is_prepared_as_its_provider_takes_it() -> None:
    catalogue, _ = read(
        resource("a", auth_type="api_key"), resource("b", auth_type="of tomorrow")
    )
    await catalogue.refresh()
    azure, unknown = catalogue.targets["a"], catalogue.targets["b"]
    assert azure.authorization == b"api-key: sk-a"
    assert azure.upgrade_keys == (
        (b"api-key", b"sk-a"), (b"authorization", b"Bearer sk-a")
    )  # fmt: skip
    assert unknown.upgrade_keys == ((b"authorization", b"Bearer sk-b"),)
    assert unknown.authorization == b"authorization: Bearer sk-b"


@timeless
async def test_a_decision_of_a_new_catalogue_reads_it_once() -> None:
    catalogue, twin = read(resource("a"), resource("b"))
    known = [catalogue.known]
    found = await asyncio.gather(*(catalogue.find("a", "v2") for _ in range(3)))
    known.append(catalogue.known)
    assert known == [False, True]
    assert len({id(target) for target in found}) == 1
    assert twin.reads == 1
    assert await catalogue.find("gone", "v2") is None
    assert twin.reads == 1
    await catalogue.refresh()
    assert twin.reads == 2


@timeless
async def test_it_is_not_read_before_the_functions_are_there() -> None:
    catalogue, twin = read(resource("a"))
    twin.missing = NoCatalogue("An older router.")
    with pytest.raises(NoCatalogue):
        await catalogue.refresh()
    assert (catalogue.known, catalogue.problem) == (False, "An older router.")
    twin.missing = None
    await catalogue.refresh()
    assert (catalogue.known, catalogue.problem) == (True, None)
    twin.missing = NoCatalogue("A copy stays in use.")
    await catalogue.refresh()


@timeless
async def test_the_last_copy_stays_while_redis_is_away() -> None:
    catalogue, twin = read(resource("a"))
    await catalogue.refresh()
    twin.away = True
    with pytest.raises(RedisAway):
        await catalogue.find("a", "v9")
    assert set(catalogue.targets) == {"a"}


@pytest.mark.parametrize(
    ("names", "closed"),
    [(("a", "b"), ()), (("a", "nowhere"), ("nowhere",)), (("nowhere",), ())],
    ids=["all here", "one is not", "none is here"],
)
@timeless
async def test_resources_without_a_key_here_are_passed_over_unless_all_are(
    names: tuple[str, ...], closed: tuple[str, ...]
) -> None:
    catalogue, _ = read(*map(resource, names))
    await catalogue.refresh()
    assert catalogue.closed == closed


@timeless
async def test_aliases_are_read_with_it() -> None:
    alias = Alias(alias="fast", provider_id="p", upstream_id="m")
    catalogue, _ = read(resource("a", provider_id="p"), aliases=(alias,))
    await catalogue.refresh()
    (target,) = catalogue.alias_targets["fast"]
    assert (target.upstream_id, target.open) == ("m", True)
