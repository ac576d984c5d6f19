"""Which failures send a request to another resource, how often, and the recorded
causes. `Lifecycle.rejected` and `failed` ask; `attempts.py` is the loop. Pure."""

from collections.abc import Callable
from datetime import datetime

from libs.common.bodies.hints import Hints
from libs.common.contracts.events import Cause
from libs.common.upstream_answers.verdicts import Verdict, cooldown_ms
from services.gateway.proxy.steps import ACQUIRE, ANSWER, REWRITE, Failure, Next

# Before the first byte reached the client. 401 and 403 too: the client did not
# choose the key.
_RETRIED = frozenset({401, 403, 429, 500, 502, 503, 504, 529})
_DEAD_KEY = frozenset({Cause.KEY_REFUSED, Cause.INSUFFICIENT_QUOTA})
# Failures that pass: the same key may serve the request again soon.
_PASSING = frozenset({Cause.RATE_LIMITED, Cause.SERVER_ERROR})


def retried(status: int, code: str | None = None) -> bool:
    """Does an answer of this status send the request to another resource? `code` is
    its error's."""
    return status in _RETRIED or _is_not_deployed(status, code)


def _is_not_deployed(status: int, code: str | None) -> bool:
    """Does this Azure resource lack the model? Another one may have it."""
    return status == 404 and code == "DeploymentNotFound"


def end_of_attempts(end: int, first: int, most: int, cause: str) -> int:
    """The attempt that a request no longer makes, after one failed with `cause`. Before
    it was `end`. `first`: its first attempt. `most`: PROXY_MAX_ATTEMPTS.

    Upstreams close idle connections, and a dead key is refused before it works, often
    with others that were revoked too: attempts at those do not count, up to `most` of
    them. If `most` is 1, no second key is tried."""
    free = cause == Cause.STALE_CONNECTION or (cause in _DEAD_KEY and most > 1)
    return min(end + 1, first + 2 * most) if free else end


# Paths of POST whose requests have no effect but their answer and its cost. (A response
# that is stored twice has two ids, of which the client learns one.)
_COMPUTES = frozenset(
    {
        b"/responses", b"/responses/input_tokens", b"/responses/compact",
        b"/chat/completions", b"/completions", b"/embeddings", b"/moderations",
    }
)  # fmt: skip
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


def may_repeat(method: str, path: bytes, hints: Hints) -> bool:
    """May a request be sent again that the upstream may have acted on? Yes if the
    method is idempotent (RFC 9110 section 9.2.2), for a cancellation, and to compute
    an answer, unless that is added to a conversation or runs in the background."""
    if method in _IDEMPOTENT:
        return True
    if path not in _COMPUTES:
        return path.startswith(b"/responses/") and path.endswith(b"/cancel")
    kept = any(id_.startswith("conv_") for id_ in hints.bound_ids)
    return not kept and not hints.background


def is_unreadable(status: int, code: str | None) -> bool:
    """Did the upstream reject encrypted reasoning that another account wrote?"""
    return status == 400 and code == "invalid_encrypted_content"


def next_step(status: int, code: str | None, *, account_bound: bool) -> Next:
    """What follows an answer of this status, before the client has a byte."""
    if retried(status, code):
        return ACQUIRE
    return REWRITE if account_bound and is_unreadable(status, code) else ANSWER


def is_withheld(after: Failure, before: Failure | None, *, unanswered: bool) -> bool:
    """Does the client get the failure `before` although `after` is the last one? Yes
    if `after` says that its key is dead, and `before` passes.

    Clients give up on a 401, 403 or `insufficient_quota` (docs/upstream-api.md), but
    the key is the operator's, and the one before may soon work again. `unanswered`: an
    attempt before got no answer, so the client gets 502 if `before` is None."""
    if after.cause not in _DEAD_KEY:
        return False
    return unanswered if before is None else before.cause in _PASSING


def gives_way(before: Failure | None, cause: str) -> bool:
    """Is the failure `before` dropped because the attempt after it got no answer, with
    this cause? Yes if it says that its key is dead, for the same reason."""
    dead = before is not None and before.cause in _DEAD_KEY
    return dead and cause != Cause.NO_KEY


def waiting_helps(failure: Failure | None, status: int) -> bool:
    """Clients give up on a 401 or 403. While another key of the account is only rate
    limited, they had better get the `status` 429 that routing refuses with."""
    return failure is not None and failure.status in (401, 403) and status == 429


def with_sooner_wait(
    before: Failure | None, after: Failure, now: Callable[[], datetime]
) -> Failure:
    """The failure of the last attempt. If all were rate limited, the client may ask
    again as soon as the first of them said."""
    if before is None or before.status != 429 or after.status != 429:
        return after
    sooner, later = (cooldown_ms(each.headers, now) for each in (before, after))
    if sooner is None or (later is not None and later <= sooner):
        return after
    kept = [h for h in after.headers if h[0] not in _WAITS]
    wait = b"retry-after", b"%d" % max(-(-sooner // 1000), 1)
    return Failure(after.status, [*kept, wait], after.body, after.cause)


_WAITS = (b"retry-after", b"retry-after-ms")
_CAUSES = {
    "limited": Cause.RATE_LIMITED,
    "exhausted": Cause.INSUFFICIENT_QUOTA,
    "refused": Cause.KEY_REFUSED,
    "fault": Cause.SERVER_ERROR,
}


def cause_of(status: int, verdict: Verdict, code: str | None = None) -> Cause:
    """Why an answer of this status was not the request's last. `verdict` is what it
    says of its resource, `code` its error's."""
    cause = _CAUSES.get(verdict.kind)
    if cause is None:
        of_model = status == 403 or _is_not_deployed(status, code)
        return Cause.MODEL_REFUSED if of_model else Cause.REQUEST_REFUSED
    return cause
