"""Arguments and results of the routing functions. Pure.

Those made for each request are msgspec structs, which cost a tenth of a dataclass."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from libs.common.contracts.events import GatewayEvent
from libs.common.routing.budgets import Quota
from libs.common.upstream_answers.verdicts import Verdict


def digest(value: str) -> str:
    """An id of a client or an upstream as 32 hex characters, for use in Redis keys."""
    made = _unused.copy()  # takes less time than a new one with its options
    try:
        made.update(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        made.update(value.encode("utf-8", "replace"))
    return made.hexdigest()


_unused = hashlib.blake2b(digest_size=16)


@lru_cache(maxsize=1024)
def model_digest(model: str | None) -> str:
    """The same of a model's name; empty without one. Cached: models are few."""
    return digest(model) if model else ""


def session_digest(session_id: str, tenant: str = "") -> str:
    """The same of a session id. Tenants that use the same session id have different
    digests. Cached: a session has many requests."""
    # One string as the key of the cache is faster than two.
    return _kept_digest(f"{tenant}\0{session_id}" if tenant else session_id)


_kept_digest = lru_cache(maxsize=4096)(digest)


class Asker(msgspec.Struct, frozen=True, gc=False):
    """The tenant of a request, and the ids that it must be allowed to name.

    `tenant` is empty for requests without a proxy key. `kinds` has one letter for each
    id of `Ask.bound` and then of `further`: NAMED or REFERENCE. Empty `kinds`: only
    known owners of `bound` are compared. `strict`: ids without an owner, or minted
    without a key, are refused."""

    tenant: str = ""
    strict: bool = False
    kinds: str = ""
    further: tuple[str, ...] = ()  # digests of ids that do not affect the choice


NAMED = "n"  # an id that clients do not make up
REFERENCE = "r"  # an id that a client may have made up
ANYBODY = Asker()

# Letters of `Ask.turn`.
DECIDED = "d"  # the decision of the socket's upgrade is for this request, too
CHAINED = "c"  # it continues a response
CONFINED = "s"  # it continues a response that only this socket's upstream remembers
# Its model alias has other targets: it is refused rather than sent to a resource that
# is cooling down, or whose account is at its limit.
OTHERS = "o"


class Place(msgspec.Struct, frozen=True, gc=False):
    """Of a request that waits in a queue. Shares (proxy keys or sessions) are served in
    turn, by their weights."""

    share: str
    left_ms: int  # how long it may still wait; 0: the last call
    weight: float = 1

    def entry(self, ask: "Ask") -> str:
        return f"{ask.request_id}|{self.share}|{ask.gateway_id}"


class Ask(msgspec.Struct, frozen=True, gc=False):
    """The arguments of acquire for one attempt."""

    request_id: str
    decision_id: str
    attempt: int
    gateway_id: str
    pool_id: str | None
    session_id: str | None
    session: str  # session digest, or empty
    model: str  # digest of the model's name, or empty; cooldowns are per model
    bound: tuple[str, ...]  # digests of the upstream ids it names, newest first
    account_bound: bool  # has encrypted content, which only its account can read
    tried: tuple[str, ...]  # resources where this request failed
    previous: str  # the resource that holds this request's lease, or empty
    lease: bytes  # the request event so far: JSON without the closing brace
    draw: int  # a random number: the choice is a pure function
    resolved: bool = False  # SQL was asked for unknown ids
    replayed: bool = False  # rewritten for another account, without its reasoning
    cause: str = ""  # how the previous attempt ended: a `Cause`
    asker: Asker = ANYBODY
    tokens: int | None = 0  # that it may take, estimated; None: limits do not matter
    # For a request on a WebSocket: the resource that the socket leads to. And letters.
    socket: str = ""
    turn: str = ""
    # For a request that waits, or did.
    place: Place | None = None
    waited_ms: int | None = None
    # The limits of its key that were not asked yet, and the tokens that it may use; a
    # leading `-` admits it although the spend of a budget is not known.
    quota: Quota | None = None
    may_use: str = "0"
    tells: bool = False  # Redis did not know the limits by their id: tell them

    @property
    def chained(self) -> bool:
        """Does it continue a response on its WebSocket?"""
        return CHAINED in self.turn or CONFINED in self.turn


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The resource of an attempt. `version`: of the catalogue it was chosen from."""

    resource_id: str
    reason: str
    version: str
    degraded: bool = False
    trial: bool = False  # half open: the first request after a cooldown
    event: bytes = b""  # the decision event (JSON) as emitted
    left: bytes = b""  # begins with what its key used (`budgets.LEFT`)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a request would go. `status`: ok or the name of the refusal."""

    status: str
    resource_id: str | None
    reason: str
    trial: bool
    wait_ms: int
    candidates: list[dict[str, Any]]


class Release(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ended. `event`: the request event (JSON), for the last attempt.

    Without a verdict the attempt was judged already. `model` is its name.
    """

    request_id: str
    gateway_id: str
    resource_id: str
    verdict: Verdict | None
    session: str  # digest; bound to the resource when the verdict is ok
    learned: tuple[str, ...]  # digests of ids that the response minted
    model: str | None
    event: bytes | None
    tenant: str = ""  # of the learned ids
    limits: str = ""  # of the account, as `account_limits.Told.encoded`
    # The limits of its key, if it used anything that counts to them.
    quota: Quota | None = None
    tokens: int = 0
    nanos: int = 0


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A lease as its gateway knows it. `record`: a complete JSON object."""

    request_id: str
    resource_id: str
    record: bytes


class Owner(msgspec.Struct, frozen=True, gc=False):
    """Where state is, and whose: the resource that made it, its account, and the tenant
    (empty for a request without a proxy key)."""

    resource_id: str
    account_id: str
    tenant: str = ""

    def encoded(self) -> str:
        return f"{self.resource_id}|{self.account_id}|{self.tenant}"


class Kept(msgspec.Struct, frozen=True, gc=False):
    """The owner of a session or an id, if it is known, and for how long it is kept. A
    session is kept from its last success on."""

    owner: Owner | None = None
    left_ms: int = 0


EntryId = tuple[int, int]  # of the telemetry stream: "1700000000000-0"


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """How far the telemetry stream is. Ingest deletes entries that it stored."""

    first_id: EntryId | None = None  # the oldest entry; None: the stream is empty
    last_id: EntryId = (0, 0)  # the last id that was ever assigned
    added: int = 0  # entries ever written

    def stored(self, entry_id: EntryId) -> bool:
        """Whether this entry, and all older ones, are stored."""
        return self.first_id is None or self.first_id > entry_id


@dataclass(frozen=True, slots=True)
class Beat:
    """The reply to a heartbeat. `known`: Redis had the gateway; if not, it was reaped
    or Redis was emptied. `born`: when Redis got its first catalogue; a changed value
    means that everything this gateway wrote before is lost."""

    version: str | None
    known: bool
    born: str = ""
    ends: StreamEnds = StreamEnds()


@dataclass(frozen=True, slots=True)
class Reported:
    """A gateway's ledger report in Redis, and its age."""

    at_ms: int
    age_ms: int
    books: GatewayEvent


class Refusal(Exception):
    """No resource for this request."""

    event = b""  # the decision event (JSON), if emitted


class UnknownIds(Refusal):
    """The request names ids that Redis does not know. Nothing was done; ask again after
    a lookup in SQL. `age_ms`: since Redis was empty."""

    def __init__(self, age_ms: int) -> None:
        self.age_ms = age_ms
        super().__init__()


class ForeignId(Refusal):
    """The request names an id that is not its tenant's. `which`: its place among the
    ids of the ask. `known`: it is another tenant's; else it has no owner."""

    def __init__(self, which: int, *, known: bool) -> None:
        self.which = which
        self.known = known
        super().__init__()


class UnknownPool(Refusal):
    """The request names a pool that is not in the catalogue."""

    def __init__(self, pools: tuple[str, ...]) -> None:
        self.pools = pools
        super().__init__()


class NoResources(Refusal):
    """The catalogue is empty."""


class NotNow(Refusal):
    """`retry_after_ms`: when it may be served."""

    def __init__(self, retry_after_ms: int) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__()


class NoCapacity(NotNow):
    """No resource of the pool may be tried now."""


class OwnerLimited(NotNow):
    """The only account that has the request's state is rate limited."""


class Busy(NotNow):
    """What could serve the request is at its limit. Without an `event` nothing was
    done, and the request may wait in a queue."""


class Queued(Refusal):
    """The request has its place in the queue of a class."""

    def __init__(self, waits_for: str) -> None:
        self.waits_for = waits_for
        super().__init__()


class LimitsUnknown(Refusal):
    """Redis does not know the limits by their id: ask again with `Ask.tells`."""


class QuotaRefused(Refusal):
    """The request's key may not have it now. Nothing was done."""


class KeyLimited(QuotaRefused):
    """A limit per minute is reached: of `requests` or of `tokens`."""

    def __init__(self, which: str, wait_ms: int) -> None:
        self.which = which
        self.wait_ms = wait_ms
        super().__init__()


class BudgetRefused(QuotaRefused):
    """`subject`: whose budget it is."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__()


class SpendUnknown(BudgetRefused):
    """It is not known what was spent: the router has to sum it."""


class BudgetReserved(BudgetRefused):
    """Running requests may use what is left."""


class BudgetSpent(BudgetRefused):
    """`which`: `tokens` or `usd`; `rest`: less is left than the request may use, which
    is `left` tokens."""

    def __init__(self, subject: str, which: str, left: int = 0) -> None:
        self.which = which
        self.left = left
        super().__init__(subject)


class OwnerGone(Refusal):
    """The account that has the request's state has no working key."""
