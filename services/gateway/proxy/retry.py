"""Which statuses of an upstream send a request to another resource, and the recorded
causes. Attempts without an answer: `Lifecycle.failed`. Pure."""

from libs.common.contracts.events import Cause
from libs.common.contracts.verdicts import Verdict
from services.gateway.proxy.steps import Failure

# Before the first byte reached the client. 401 and 403 too: the client did not
# choose the key.
_RETRIED = frozenset({401, 403, 429, 500, 502, 503, 504, 529})


def retried(status: int) -> bool:
    """Does an answer of this status send the request to another resource?"""
    return status in _RETRIED


def is_unreadable(status: int, code: str | None) -> bool:
    """Did the upstream reject encrypted reasoning that another account wrote?"""
    return status == 400 and code == "invalid_encrypted_content"


def waiting_helps(failure: Failure | None, status: int) -> bool:
    """Clients give up on a 401 or 403. While another key of the account is only rate
    limited, they had better get the `status` 429 that routing refuses with."""
    return failure is not None and failure.status in (401, 403) and status == 429


_CAUSES = {
    "limited": Cause.RATE_LIMITED,
    "exhausted": Cause.INSUFFICIENT_QUOTA,
    "refused": Cause.KEY_REFUSED,
    "fault": Cause.SERVER_ERROR,
}


def cause_of(status: int, verdict: Verdict) -> Cause:
    """Why an answer of this status was not the request's last. `verdict` is what it
    says of its resource."""
    cause = _CAUSES.get(verdict.kind)
    if cause is None:
        return Cause.MODEL_REFUSED if status == 403 else Cause.REQUEST_REFUSED
    return cause
