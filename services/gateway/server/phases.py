"""The phases of the parser of a client's requests."""

from enum import Enum
from typing import Final


class Phase(Enum):
    """Where the parser is in the client's byte stream.

    IDLE -> HEAD -> BODY -> IDLE for each request. A head or a body that is not
    complete when a read ends becomes HEAD_CONTINUED or BODY_CONTINUED, so between
    two reads the phase is never HEAD or BODY. Two phases are final, and nothing
    is parsed in them: STOPPED after a refusal or CONNECT, and UPGRADED behind a
    request that opens a WebSocket.
    """

    IDLE = "between requests"
    HEAD = "in a head that began with this read"
    HEAD_CONTINUED = "in a head that began with an earlier read"
    BODY = "in a body whose head ended with this read"
    BODY_CONTINUED = "in a body whose head ended with an earlier read"
    STOPPED = "no further requests"
    UPGRADED = "WebSocket"


# Python 3.11 runs a descriptor for each lookup of a member on its class: slow code.
IDLE: Final[Phase] = Phase.IDLE
HEAD: Final[Phase] = Phase.HEAD
HEAD_CONTINUED: Final[Phase] = Phase.HEAD_CONTINUED
BODY: Final[Phase] = Phase.BODY
BODY_CONTINUED: Final[Phase] = Phase.BODY_CONTINUED
STOPPED: Final[Phase] = Phase.STOPPED
UPGRADED: Final[Phase] = Phase.UPGRADED
