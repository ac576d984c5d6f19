"""May a failed attempt be repeated elsewhere, and what is said of it? Pure."""

from libs.common.contracts.events import Cause
from libs.common.contracts.verdicts import Verdict

# Before the first byte reached the client. 401 and 403 too: the client did not
# choose the key.
_RETRIED = frozenset({401, 403, 429, 500, 502, 503, 504, 529})


def retried(status: int) -> bool:
    """Does an answer of this status send the request to another resource?"""
    return status in _RETRIED


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
