"""What `hints.py` reads from a request. Pure.

Interpreted, because mypyc compiles no structs (docs/adr/0011-mypyc.md)."""

import msgspec


class Hints(msgspec.Struct, frozen=True, gc=False):
    """What a request says about its session and state. `bound_ids` are upstream ids in
    the request, the most significant first. The rest is for isolation (`isolate`):

    `named`: ids of objects, which clients do not generate. `references`: ids of input
    items that the upstream must look up, and the newest item ids. `problem`: why these
    lists may be incomplete."""

    model: str | None = None
    stream: bool = False
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None
    previous_response_id: str | None = None
    bound_ids: tuple[str, ...] = ()
    account_bound: bool = False
    background: bool = False
    named: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    problem: str | None = None
    max_output_tokens: int | None = None
    # What policies of keys limit besides (`isolate`).
    effort: str | None = None
    service_tier: str | None = None
