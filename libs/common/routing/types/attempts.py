"""What the routing functions are asked for an attempt, and told of it. Pure.

Compiled: classes that each request makes write out `__init__`, because compiled code
calls it directly, and not one that `dataclass` makes (docs/adr/0011-mypyc.md). Nothing
changes their instances, which requests share."""

from dataclasses import dataclass
from typing import Final

from libs.common.routing.budgets import Quota
from libs.common.upstream_answers.verdicts import Verdict


@dataclass(init=False, slots=True)
class Asker:
    """The tenant of a request, and the ids that it must be allowed to name.

    `tenant` is empty for requests without a proxy key. `kinds` has one letter for each
    id of `Ask.bound` and then of `further`: NAMED or REFERENCE. Empty `kinds`: only
    known owners of `bound` are compared. `strict`: ids without an owner, or minted
    without a key, are refused."""

    tenant: str
    strict: bool
    kinds: str
    further: tuple[str, ...]  # digests of ids that do not affect the choice

    def __init__(
        self,
        tenant: str = "",
        strict: bool = False,
        kinds: str = "",
        further: tuple[str, ...] = (),
    ) -> None:
        self.tenant = tenant
        self.strict = strict
        self.kinds = kinds
        self.further = further


NAMED: Final = "n"  # an id that clients do not make up
REFERENCE: Final = "r"  # an id that a client may have made up
ANYBODY: Final = Asker()

# Letters of `Ask.turn`.
DECIDED: Final = "d"  # the decision of the socket's upgrade is for this request, too
CHAINED: Final = "c"  # it continues a response
CONFINED: Final = (
    "s"  # it continues a response that only this socket's upstream remembers
)
# Its model alias has other targets: it is refused rather than sent to a resource that
# is cooling down, or whose account is at its limit.
OTHERS: Final = "o"


@dataclass(init=False, slots=True)
class Place:
    """Of a request that waits in a queue. Shares (proxy keys or sessions) are served in
    turn, by their weights."""

    share: str
    left_ms: int  # how long it may still wait; 0: the last call
    weight: float

    def __init__(self, share: str, left_ms: int, weight: float = 1) -> None:
        self.share = share
        self.left_ms = left_ms
        self.weight = weight

    def entry(self, ask: "Ask") -> str:
        return f"{ask.request_id}|{self.share}|{ask.gateway_id}"


@dataclass(init=False, slots=True)
class Ask:
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
    resolved: bool  # SQL was asked for unknown ids
    replayed: bool  # rewritten for another account, without its reasoning
    cause: str  # how the previous attempt ended: a `Cause`
    asker: Asker
    tokens: int | None  # that it may take, estimated; None: limits do not matter
    # For a request on a WebSocket: the resource that the socket leads to. And letters.
    socket: str
    turn: str
    # For a request that waits, or did.
    place: Place | None
    waited_ms: int | None
    # The limits of its key that were not asked yet, and the tokens that it may use; a
    # leading `-` admits it although the spend of a budget is not known.
    quota: Quota | None
    may_use: str
    tells: bool  # Redis did not know the limits by their id: tell them

    def __init__(  # noqa: PLR0913 - of all fields
        self,
        request_id: str,
        decision_id: str,
        attempt: int,
        gateway_id: str,
        pool_id: str | None,
        session_id: str | None,
        session: str,
        model: str,
        bound: tuple[str, ...],
        account_bound: bool,
        tried: tuple[str, ...],
        previous: str,
        lease: bytes,
        draw: int,
        resolved: bool = False,
        replayed: bool = False,
        cause: str = "",
        asker: Asker = ANYBODY,
        tokens: int | None = 0,
        socket: str = "",
        turn: str = "",
        place: Place | None = None,
        waited_ms: int | None = None,
        quota: Quota | None = None,
        may_use: str = "0",
        tells: bool = False,
    ) -> None:
        self.request_id, self.decision_id = request_id, decision_id
        self.attempt, self.gateway_id = attempt, gateway_id
        self.pool_id, self.session_id = pool_id, session_id
        self.session, self.model, self.bound = session, model, bound
        self.account_bound, self.tried = account_bound, tried
        self.previous, self.lease, self.draw = previous, lease, draw
        self.resolved, self.replayed, self.cause = resolved, replayed, cause
        self.asker, self.tokens = asker, tokens
        self.socket, self.turn = socket, turn
        self.place, self.waited_ms = place, waited_ms
        self.quota, self.may_use, self.tells = quota, may_use, tells

    @property
    def chained(self) -> bool:
        """Does it continue a response on its WebSocket?"""
        return CHAINED in self.turn or CONFINED in self.turn


@dataclass(init=False, slots=True)
class Decision:
    """The resource of an attempt. `version`: of the catalogue it was chosen from."""

    resource_id: str
    reason: str
    version: str
    degraded: bool
    trial: bool  # half open: the first request after a cooldown
    event: bytes  # the decision event (JSON) as emitted
    left: bytes  # begins with what its key used (`budgets.LEFT`)

    def __init__(  # noqa: PLR0913 - of all fields
        self,
        resource_id: str,
        reason: str,
        version: str,
        degraded: bool = False,
        trial: bool = False,
        event: bytes = b"",
        left: bytes = b"",
    ) -> None:
        self.resource_id, self.reason, self.version = resource_id, reason, version
        self.degraded, self.trial = degraded, trial
        self.event, self.left = event, left


@dataclass(init=False, slots=True)
class Release:
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
    tenant: str  # of the learned ids
    limits: str  # of the account, as `account_limits.Told.encoded`
    # The limits of its key, if it used anything that counts to them.
    quota: Quota | None
    tokens: int
    nanos: int

    def __init__(  # noqa: PLR0913 - of all fields
        self,
        request_id: str,
        gateway_id: str,
        resource_id: str,
        verdict: Verdict | None,
        session: str,
        learned: tuple[str, ...],
        model: str | None,
        event: bytes | None,
        tenant: str = "",
        limits: str = "",
        quota: Quota | None = None,
        tokens: int = 0,
        nanos: int = 0,
    ) -> None:
        self.request_id, self.gateway_id = request_id, gateway_id
        self.resource_id, self.verdict = resource_id, verdict
        self.session, self.learned = session, learned
        self.model, self.event = model, event
        self.tenant, self.limits = tenant, limits
        self.quota, self.tokens, self.nanos = quota, tokens, nanos


@dataclass(init=False, slots=True)
class Lease:
    """A lease as its gateway knows it. `record`: a complete JSON object."""

    request_id: str
    resource_id: str
    record: bytes

    def __init__(self, request_id: str, resource_id: str, record: bytes) -> None:
        self.request_id, self.resource_id = request_id, resource_id
        self.record = record


@dataclass(init=False, slots=True)
class Owner:  # noqa: PLW1641 - instances of a dataclass have no hash either
    """Where state is, and whose: the resource that made it, its account, and the tenant
    (empty for a request without a proxy key)."""

    resource_id: str
    account_id: str
    tenant: str

    def __init__(self, resource_id: str, account_id: str, tenant: str = "") -> None:
        self.resource_id, self.account_id = resource_id, account_id
        self.tenant = tenant

    def __eq__(self, other: object) -> bool:
        """Written out, because the one that `dataclass` makes is interpreted."""
        return (
            isinstance(other, Owner)
            and self.resource_id == other.resource_id
            and self.account_id == other.account_id
            and self.tenant == other.tenant
        )

    def encoded(self) -> str:
        return f"{self.resource_id}|{self.account_id}|{self.tenant}"


@dataclass(init=False, slots=True)
class Kept:
    """The owner of a session or an id, if it is known, and for how long it is kept. A
    session is kept from its last success on."""

    owner: Owner | None
    left_ms: int

    def __init__(self, owner: Owner | None = None, left_ms: int = 0) -> None:
        self.owner, self.left_ms = owner, left_ms
