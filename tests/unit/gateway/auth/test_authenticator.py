"""Authentication by header, with a key table that changes, is unreachable or is
empty."""

import asyncio
from collections.abc import Callable

import pytest

from libs.common.errors import RedisAway
from libs.common.proxy_keys import Principal, new_secret, secret_hash
from libs.common.redis.shared_connection import Refused
from services.gateway.auth import authenticator
from services.gateway.auth.authenticator import Authenticator
from services.gateway.errors import Problem

NOW_S = 1_760_000_000.0
SECRET = new_secret()
ANOTHER = new_secret()
PRINCIPAL = Principal(id="key_1")


class Table:
    """The table in Redis; counts reads."""

    def __init__(self, **principals: Principal) -> None:
        self.current: str | None = "1"
        self.principals = {
            secret_hash(secret.encode()): principal
            for secret, principal in principals.items()
        }
        self.error: Exception | None = None
        self.looks = self.reads = 0
        self.asked = asyncio.Event()

    async def version(self) -> str | None:
        self.looks += 1
        self.asked.set()
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.current

    async def read(self) -> dict[str, Principal]:
        self.reads += 1
        return dict(self.principals)

    def put(self, secret: str, principal: Principal) -> None:
        self.principals[secret_hash(secret.encode())] = principal
        self.current = str(int(self.current or 0) + 1)


def headers(secret: str, scheme: str = "Bearer") -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), (b"authorization", f"{scheme} {secret}".encode())]


async def admitting(
    principal: Principal = PRINCIPAL,
    *,
    required: bool = True,
    clock: Callable[[], float] = lambda: NOW_S,
) -> tuple[Authenticator, Table]:
    table = Table(**{SECRET: principal})
    made = Authenticator(table, required=required, clock=clock)
    await made.refresh()
    return made, table


async def refused(made: Authenticator, given: list[tuple[bytes, bytes]]) -> Problem:
    with pytest.raises(Problem) as caught:
        await made.enter(given)
    return caught.value


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
@pytest.mark.parametrize("required", [True, False])
async def test_a_key_names_its_principal(scheme: str, required: bool) -> None:
    made, _ = await admitting(required=required)
    for _ in range(2):  # found, then remembered
        assert await made.enter(headers(SECRET, scheme)) == PRINCIPAL


@pytest.mark.asyncio
@pytest.mark.parametrize("authorization", [None, b"Bearer sk-123", b"Basic x"])
@pytest.mark.parametrize("required", [True, False])
async def test_a_key_may_be_in_api_key(
    authorization: bytes | None, required: bool
) -> None:
    made, table = await admitting(required=required)
    given = [(b"api-key", SECRET.encode())]
    if authorization is not None:
        given.append((b"authorization", authorization))
    for _ in range(2):  # found, then remembered
        assert await made.enter(given) == PRINCIPAL
    unknown = [(b"api-key", ANOTHER.encode())]
    assert "is not known" in (await refused(made, unknown)).message
    table.put(ANOTHER, Principal(id="key_2"))
    assert await made.enter(unknown) == Principal(id="key_2")
    table.put(SECRET, Principal(id="key_1", enabled=False))
    await made.refresh()
    assert "is disabled" in (await refused(made, given)).message


@pytest.mark.asyncio
async def test_of_two_different_keys_the_one_in_authorization_decides() -> None:
    made, table = await admitting()
    table.put(ANOTHER, Principal(id="key_2"))
    await made.refresh()
    for _ in range(2):
        both = [*headers(SECRET), (b"api-key", ANOTHER.encode())]
        assert await made.enter(both) == PRINCIPAL
        both = [*headers(ANOTHER), (b"api-key", SECRET.encode())]
        assert await made.enter(both) == Principal(id="key_2")
    revoked = [*headers(SECRET + "x"), (b"api-key", SECRET.encode())]
    assert "is not known" in (await refused(made, revoked)).message


@pytest.mark.asyncio
async def test_what_is_a_key_in_one_header_is_none_in_the_other() -> None:
    made, _ = await admitting(required=False)
    assert await made.enter([(b"api-key", SECRET.encode())]) == PRINCIPAL
    assert await made.enter([(b"authorization", SECRET.encode())]) is None
    assert await made.enter(headers(SECRET)) == PRINCIPAL
    assert await made.enter([(b"api-key", f"Bearer {SECRET}".encode())]) is None


FOREIGN = [
    pytest.param([], id="none"),
    pytest.param([(b"authorization", b"Bearer sk-123")], id="another key"),
    pytest.param([(b"authorization", b"Bearer")], id="no token"),
    pytest.param(headers(SECRET, "Basic"), id="another scheme"),
    pytest.param([(b"authorization", SECRET.encode())], id="bare"),
    pytest.param([(b"x-api-key", SECRET.encode())], id="another header"),
    pytest.param([(b"authorization", b"\xff\xfe")], id="not ASCII"),
    pytest.param([(b"api-key", b"sk-123")], id="another api-key"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("given", FOREIGN)
async def test_without_a_key_of_ours_one_is_anybody(
    given: list[tuple[bytes, bytes]],
) -> None:
    made, table = await admitting(required=False)
    assert await made.enter(given) is None
    assert table.looks == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("given", FOREIGN)
async def test_where_keys_are_required_others_are_refused(
    given: list[tuple[bytes, bytes]],
) -> None:
    made, table = await admitting(required=True)
    problem = await refused(made, given)
    assert (problem.status, problem.code) == (401, "invalid_proxy_key")
    assert "Authorization: Bearer rpx_" in problem.message
    assert "api-key: rpx_" in problem.message
    assert (b"www-authenticate", b"Bearer") in problem.headers
    assert table.looks == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    ("principal", "secret", "says"),
    [
        pytest.param(PRINCIPAL, ANOTHER, "not known", id="unknown"),
        pytest.param(PRINCIPAL, "rpx_", "not known", id="nothing behind the mark"),
        pytest.param(PRINCIPAL, SECRET + "x", "not known", id="one byte more"),
        pytest.param(
            Principal(id="k", enabled=False), SECRET, "disabled", id="disabled"
        ),
        pytest.param(
            Principal(id="k", expires_at_ms=int(NOW_S * 1000)),
            SECRET,
            "expired",
            id="expired",
        ),
    ],
)
async def test_a_key_of_ours_that_does_not_work_is_never_taken_for_anybody(
    required: bool, principal: Principal, secret: str, says: str
) -> None:
    made, _ = await admitting(principal, required=required)
    problem = await refused(made, headers(secret))
    assert (problem.status, problem.code) == (401, "invalid_proxy_key")
    assert says in problem.message
    assert secret.removeprefix("rpx_") not in problem.message or secret == "rpx_"


@pytest.mark.asyncio
async def test_a_key_expires_while_it_is_cached() -> None:
    expiring = Principal(id="k", expires_at_ms=int(NOW_S * 1000))
    times = iter([NOW_S - 1, NOW_S])
    made, _ = await admitting(expiring, clock=lambda: next(times))
    assert await made.enter(headers(SECRET)) is not None
    assert "expired" in (await refused(made, headers(SECRET))).message


@pytest.mark.asyncio
async def test_no_hash_is_computed_for_a_header_seen_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _ = await admitting()
    made.admit(headers(SECRET))
    monkeypatch.setattr(authenticator, "secret_hash", None)
    assert made.admit(headers(SECRET)) == PRINCIPAL


@pytest.mark.asyncio
async def test_what_is_cached_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticator, "MOST_CACHED", 3)
    made, _ = await admitting()
    for spaces in range(300):
        given = headers(" " * spaces + SECRET)
        assert made.admit(given) == PRINCIPAL
        assert len(made._cached) <= 3
    assert all(len(header) <= 256 for header in made._cached)


@pytest.mark.asyncio
async def test_a_key_minted_after_the_last_beat_works_at_once() -> None:
    made, table = await admitting()
    table.put(ANOTHER, Principal(id="key_2"))
    assert await made.enter(headers(ANOTHER)) == Principal(id="key_2")


@pytest.mark.asyncio
async def test_a_revoked_key_ends_with_the_next_beat() -> None:
    made, table = await admitting(required=False)
    await made.enter(headers(SECRET))
    table.principals.clear()
    table.current = "2"
    await made.refresh()
    assert "revoked" in (await refused(made, headers(SECRET))).message


@pytest.mark.asyncio
async def test_many_unknown_keys_cost_redis_one_question() -> None:
    made, table = await admitting()
    before = table.looks
    tries = [refused(made, headers(new_secret())) for _ in range(500)]
    await asyncio.gather(*tries)
    assert table.looks - before <= 2
    assert table.reads == 1  # at the start
    assert made._cached == {}


@pytest.mark.asyncio
async def test_a_question_under_way_is_too_old_for_a_key_that_comes_now() -> None:
    made, table = await admitting()
    table.asked.clear()
    early = asyncio.create_task(refused(made, headers(new_secret())))
    await table.asked.wait()
    # Asked, not answered yet: this key is minted meanwhile.
    late = asyncio.create_task(made.enter(headers(ANOTHER)))
    await asyncio.sleep(0)
    await early
    table.put(ANOTHER, Principal(id="key_2"))
    assert await late == Principal(id="key_2")


@pytest.mark.asyncio
async def test_a_client_that_leaves_takes_nobodys_answer_with_it() -> None:
    made, table = await admitting()
    table.put(ANOTHER, Principal(id="key_2"))
    first = asyncio.create_task(made.enter(headers(ANOTHER)))
    second = asyncio.create_task(made.enter(headers(ANOTHER)))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == Principal(id="key_2")


@pytest.mark.asyncio
async def test_an_unchanged_table_is_not_read_again() -> None:
    made, table = await admitting()
    for _ in range(5):
        await made.refresh()
    assert table.reads == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [RedisAway(), Refused("LOADING")])
async def test_the_last_table_stays_in_force_while_redis_is_away(
    error: Exception,
) -> None:
    made, table = await admitting()
    table.error = error
    with pytest.raises(RedisAway):
        await made.refresh()
    assert await made.enter(headers(SECRET)) == PRINCIPAL
    assert (await refused(made, headers(ANOTHER))).status == 401


@pytest.mark.asyncio
async def test_an_emptied_redis_changes_nothing() -> None:
    made, table = await admitting()
    table.current = None
    table.principals.clear()
    await made.refresh()
    assert await made.enter(headers(SECRET)) == PRINCIPAL


@pytest.mark.asyncio
async def test_before_there_is_a_table_a_key_may_well_be_right() -> None:
    table = Table()
    table.current = None
    made = Authenticator(table, required=False)
    assert not made.known
    assert made.ready  # for those without a key
    assert not Authenticator(table, required=True).ready
    problem = await refused(made, headers(SECRET))
    assert (problem.status, problem.code) == (503, "not_ready")
    assert dict(problem.headers)[b"retry-after"] == b"1"
    assert await made.enter([]) is None


@pytest.mark.asyncio
async def test_limits_are_known_of() -> None:
    made, table = await admitting()
    assert not made.limits
    table.put(ANOTHER, Principal(id="k", tokens_per_minute=5))
    await made.refresh()
    assert made.limits
