"""The decision event as a gateway sends it with acquire: the routing function adds the
resource and the reason. The four shapes differ in the members of later attempts and of
requests that waited in a queue. Pure.

Interpreted, because mypyc compiles no structs (docs/adr/0011-mypyc.md)."""

import msgspec


class DecisionHead(msgspec.Struct, gc=False):
    request_id: str
    attempt: int
    created_at_ms: int | str
    session_id: str | None
    pool_id: str | None


class LaterHead(DecisionHead, gc=False):
    cause: str


class WaitedHead(DecisionHead, gc=False):
    waited_ms: int


class LaterWaitedHead(LaterHead, gc=False):
    waited_ms: int
