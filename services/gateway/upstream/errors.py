"""Where connections go, and what an upstream without a usable answer raises."""

from typing import NamedTuple

from libs.common.contracts.events import Cause
from libs.common.errors import ProxyError


class UpstreamError(ProxyError):
    """The upstream gave no usable answer."""

    cause = Cause.CONNECTION_LOST
    ends_request = False  # there is no time left for another attempt
    is_ours = False  # the gateway lacks something: the upstream is not to blame


class NotSent(UpstreamError):
    """No connection: nothing was sent, so it may go anywhere."""

    cause = Cause.CONNECT_ERROR


class NoFreeConnection(NotSent):
    """no connection became free"""

    cause = Cause.NO_FREE_CONNECTION
    is_ours = True


class Origin(NamedTuple):  # hashed for each request, which a tuple does in C
    """Where a connection goes."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as a URL has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
