"""What a request needs of its resource."""

import pytest

from libs.common.contracts.catalogue import Resource
from libs.common.providers.key_echoes import NO_KEY
from services.gateway.routing.target import Target
from services.gateway.upstream.origin import Origin


@pytest.mark.parametrize(
    ("account", "unnamed"), [("openai-1", True), ("org/project", False)]
)
def test_it_has_what_requests_read_of_the_resource(account: str, unnamed: bool) -> None:
    resource = Resource(
        id="openai-1",
        name="first",
        pool_id="p",
        account_id=account,
        weight=1,
        base_url="http://127.0.0.1/v1",
        credential="env:X",
    )
    target = Target(resource, Origin("http", "127.0.0.1", 80), b"h", b"/v1", b"a: b")
    assert (target.id, target.account_id) == ("openai-1", account)
    assert target.unnamed is unnamed
    assert (target.host, target.path, target.authorization) == (b"h", b"/v1", b"a: b")
    assert (target.upgrade_keys, target.sent) == ((), NO_KEY)
