"""What the routing functions refuse. Pure.

Interpreted, because class attributes of exceptions are not native
(docs/adr/0011-mypyc.md)."""


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
