"""What a gateway asks of routing, what it is told, and how it reports. Pure.
Structs of msgspec where one is made for each request: they cost a tenth."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from libs.common.contracts.events import GatewayEvent
from libs.common.contracts.verdicts import Verdict


def digest(value: str) -> str:
    """A client's or an upstream's id as part of a key: whatever its length and
    alphabet, 32 hex characters."""
    return hashlib.blake2b(value.encode("utf-8", "replace"), digest_size=16).hexdigest()


@lru_cache(maxsize=1024)
def model_digest(model: str | None) -> str:
    """The same of a model's name, of which there are few; empty for none."""
    return digest(model) if model else ""


def session_digest(session_id: str, tenant: str = "") -> str:
    """The same of a session, which asks many times. Each tenant has its own: two
    that name a session alike share nothing."""
    # One text as the key: caches compare it quicker than two.
    return _kept_digest(f"{tenant}\0{session_id}" if tenant else session_id)


_kept_digest = lru_cache(maxsize=4096)(digest)


class Asker(msgspec.Struct, frozen=True, gc=False):
    """Whose request it is, and which ids it must be allowed to name.

    `tenant` is empty for requests without a proxy key. `kinds` holds one letter for
    each id of `Ask.bound` and then of `further`: NAMED or REFERENCE. It is empty when
    nothing has to be isolated: then only the owners of `bound` that are known are
    compared. `strict`: ids without an owner, or minted without a key, are refused."""

    tenant: str = ""
    strict: bool = False
    kinds: str = ""
    further: tuple[str, ...] = ()  # digests of ids that do not decide where it goes


NAMED = "n"  # an id that clients do not invent
REFERENCE = "r"  # an id that a client may have invented
ANYBODY = Asker()


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What acquire needs to know of one attempt."""

    request_id: str
    decision_id: str
    attempt: int
    gateway_id: str
    pool_id: str | None
    session_id: str | None
    session: str  # digest of session_id, or empty
    model: str  # digest of the model's name, or empty: pauses are per model
    bound: tuple[str, ...]  # digests of upstream ids the request names, newest first
    account_bound: bool  # carries encrypted content: only its own account can read it
    tried: tuple[str, ...]  # resources that failed this request already
    previous: str  # the resource that holds this request's lease, or empty
    lease: bytes  # JSON object of the request event so far, without its last brace
    draw: int  # a random number, so that the choice itself is a pure function
    resolved: bool = False  # unknown ids were looked for in SQL
    replayed: bool = False  # rewritten for another account, without its reasoning
    cause: str = ""  # what ended the attempt before, as a `Cause`
    asker: Asker = ANYBODY


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Where an attempt goes. `version` is the catalogue the choice was made from."""

    resource_id: str
    reason: str
    version: str
    degraded: bool = False
    trial: bool = False  # half open: the first request after a pause
    event: bytes = b""  # the decision event's JSON, as it was written


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a request would go. `status` is ok, or the refusal's name."""

    status: str
    resource_id: str | None
    reason: str
    trial: bool
    wait_ms: int
    candidates: list[dict[str, Any]]


class Release(msgspec.Struct, frozen=True):
    """How one attempt ended. `event` is the request event's JSON, on the last one.

    Without a verdict the attempt was judged already. `model` is its name.
    """

    request_id: str
    gateway_id: str
    resource_id: str
    verdict: Verdict | None
    session: str  # digest; bound to the resource when the verdict is ok
    learned: tuple[str, ...]  # digests of ids this answer minted
    model: str | None
    event: bytes | None
    tenant: str = ""  # to which the learned ids belong


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A lease as its gateway knows it: `record` is the whole JSON object."""

    request_id: str
    resource_id: str
    record: bytes


class Owner(msgspec.Struct, frozen=True, gc=False):
    """Where state lives, and whose it is: the resource that made it, of an account,
    for a tenant (empty: for a request without a proxy key)."""

    resource_id: str
    account_id: str
    tenant: str = ""

    def encoded(self) -> str:
        return f"{self.resource_id}|{self.account_id}|{self.tenant}"


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
    """There is no resource for this request."""

    event = b""  # the decision event's JSON, if it was written


class UnknownIds(Refusal):
    """The request names ids that Redis does not know. Nothing was done; ask
    again once they were looked for in SQL. `age_ms`: so long ago it was empty."""

    def __init__(self, age_ms: int) -> None:
        self.age_ms = age_ms
        super().__init__()


class ForeignId(Refusal):
    """The request names an id that is not its tenant's. `which` counts the ids of
    the ask; `known`: the id is another tenant's, else it is nobody's."""

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


class NoCapacity(Refusal):
    """No resource of the pool may be tried (now)."""

    def __init__(self, retry_after_ms: int) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__()


class OwnerLimited(Refusal):
    """The only account that can read the request's state is rate limited."""

    def __init__(self, retry_after_ms: int) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__()


class OwnerGone(Refusal):
    """No working key of the account that can read the request's state is left."""
