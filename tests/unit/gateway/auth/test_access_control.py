"""Access control for both planes: admission, and the limits of keys."""

from libs.common.headers import Header
from libs.common.proxy_keys import Principal, new_secret, secret_hash
from services.gateway.auth.access_control import AccessControl
from services.gateway.auth.authenticator import Authenticator
from services.gateway.auth.key_usage import KeyUsage
from tests.support.memory.clock import timeless
from tests.support.memory.twin import Twin, resource

SECRET = new_secret()
LIMITED = Principal(id="k", requests_per_minute=2)


class Table:
    def __init__(self, principal: Principal | None = None) -> None:
        hashed = secret_hash(SECRET.encode())
        self.principals = {} if principal is None else {hashed: principal}

    async def version(self) -> str | None:
        return str(len(self.principals))

    async def read(self) -> dict[str, Principal]:
        return self.principals


def access(table: Table | None = None, twin: Twin | None = None) -> AccessControl:
    authenticator = Authenticator(table or Table(), required=False)
    return AccessControl(authenticator, twin or Twin())


@timeless
async def test_a_key_that_was_minted_a_moment_ago_comes_in() -> None:
    made = access(Table(LIMITED))
    headers: list[Header] = [(b"authorization", b"Bearer " + SECRET.encode())]
    assert await made.enter(headers) == LIMITED
    assert made.admit(headers) == LIMITED
    assert made.admit([]) is None


def test_a_limited_key_has_a_quota() -> None:
    quota = access().quota_of(LIMITED, 0)
    assert quota.requests_per_minute == 2


@timeless
async def test_what_a_key_used() -> None:
    twin = Twin(resource("a"))
    twin.counted = 1, 7
    made = access(twin=twin)
    assert await made.usage(LIMITED) == KeyUsage(1, 7)
    twin.away = True
    assert await made.usage(LIMITED) is None
