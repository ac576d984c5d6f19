"""Why an upstream gave no usable response. `cause` says what the ledger records."""

from libs.common.contracts.events import Cause
from libs.common.errors import ProxyError


class UpstreamError(ProxyError):
    """The upstream gave no usable response."""

    cause = Cause.CONNECTION_LOST
    ends_request = False  # there is no time left for another attempt
    is_ours = False  # the gateway lacks something: the upstream is not to blame
    sent = True  # the upstream may have the request, and may have acted on it
    # The connection had served a request before: the upstream may have closed it
    # because it was idle, which is no failure.
    reused = False


class NotSent(UpstreamError):
    """No connection. Nothing was sent, so the request may go to any upstream."""

    cause = Cause.CONNECT_ERROR
    sent = False


class NoFreeConnection(NotSent):
    """no connection became free"""

    cause = Cause.NO_FREE_CONNECTION
    is_ours = True


class NoKey(UpstreamError):
    """this gateway cannot resolve its key"""

    cause = Cause.NO_KEY
    sent = False
    is_ours = True


class Broken(UpstreamError):
    """The connection ended, or sent something else than HTTP, before the head of a
    response."""


class TimedOut(UpstreamError):
    """The request's deadline passed."""

    cause = Cause.TIMEOUT
    ends_request = True


class Slow(UpstreamError):
    """The upstream was silent for too long. The request's deadline has not passed."""

    cause = Cause.TIMEOUT


class Interrupted(UpstreamError):
    """The response ended within its body."""
