"""Which addresses and references a provider may have. All rules are tested through the
admin API, in test_providers.py."""

import asyncio
import socket

import pytest

from libs.common.providers.resolver import AddressInfo, Resolver
from libs.common.providers.rules import ProviderRules
from libs.common.settings.http_proxies import Egress
from services.router.admin.registry import destinations
from services.router.admin.registry.destinations import DestinationCheck
from services.router.errors import Problem

pytestmark = pytest.mark.asyncio


class Names:
    """A resolver with one answer, an error, or none."""

    def __init__(self, address: str | OSError | None = "192.0.2.1") -> None:
        self.address = address
        self.asked: list[str] = []

    async def look_up(self, host: str, port: int) -> list[AddressInfo]:
        self.asked.append(host)
        if self.address is None:
            await asyncio.Event().wait()
        if isinstance(self.address, OSError):
            raise self.address
        address = (str(self.address), port)
        return [(int(socket.AF_INET), int(socket.SOCK_STREAM), 6, "", address)]

    def check(self, **settings: str) -> DestinationCheck:
        rules, egress = ProviderRules.read(settings), Egress.read(settings)
        return DestinationCheck(rules, egress, Resolver(self.look_up))


async def refused(check: DestinationCheck, url: str, reference: str | None) -> Problem:
    with pytest.raises(Problem) as error:
        await check.refuse(url, reference)
    assert error.value.status == 400
    return error.value


async def test_a_name_with_an_allowed_address_passes() -> None:
    names = Names()
    await names.check().refuse("https://acme.example/v1", "env:PROVIDER_ACME")
    assert names.asked == ["acme.example"]


@pytest.mark.parametrize("url", ["http://169.254.169.254/v1", "http://acme.example/v1"])
async def test_a_forbidden_address(url: str) -> None:
    problem = await refused(Names("169.254.169.254").check(), url, None)
    assert (problem.code, problem.param) == ("address_not_allowed", "base_url")
    assert "docs/api.md" in problem.message


async def test_a_forbidden_reference() -> None:
    url = "https://acme.example/v1"
    problem = await refused(Names().check(), url, "env:PATH")
    assert problem.code == "credential_not_allowed"
    assert problem.param == "credential_ref"
    assert "PROXY_CREDENTIAL_VARIABLES" in problem.message


@pytest.mark.parametrize("address", [OSError(), None])
async def test_a_name_that_does_not_resolve_here_may_resolve_at_gateways(
    address: OSError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "LOOKUP_S", 0.01)
    await Names(address).check().refuse("https://acme.example/v1", None)


async def test_an_http_proxy_resolves_names_itself() -> None:
    names = Names("169.254.169.254")
    check = names.check(HTTP_PROXY="http://proxy.example:3128")
    await check.refuse("http://acme.example/v1", None)
    assert names.asked == []
