"""What `hints.py` reads from a request. Pure.

Compiled: see libs/common/routing/types/attempts.py for the `__init__`."""

from dataclasses import dataclass


@dataclass(init=False, slots=True)
class Hints:
    """What a request says about its session and state. `bound_ids` are upstream ids in
    the request, the most significant first. The rest is for isolation (`isolate`):

    `named`: ids of objects, which clients do not generate. `references`: ids of input
    items that the upstream must look up, and the newest item ids. `problem`: why these
    lists may be incomplete. Nothing changes hints."""

    model: str | None
    stream: bool
    session_id: str | None
    session_name: str | None
    pool_id: str | None
    previous_response_id: str | None
    bound_ids: tuple[str, ...]
    account_bound: bool
    background: bool
    named: tuple[str, ...]
    references: tuple[str, ...]
    problem: str | None
    max_output_tokens: int | None
    # What policies of keys limit besides (`isolate`).
    effort: str | None
    service_tier: str | None
    continues: bool  # has a member that may name earlier state, even a null

    def __init__(  # noqa: PLR0913 - of all fields
        self,
        model: str | None = None,
        stream: bool = False,
        session_id: str | None = None,
        session_name: str | None = None,
        pool_id: str | None = None,
        previous_response_id: str | None = None,
        bound_ids: tuple[str, ...] = (),
        account_bound: bool = False,
        background: bool = False,
        named: tuple[str, ...] = (),
        references: tuple[str, ...] = (),
        problem: str | None = None,
        max_output_tokens: int | None = None,
        effort: str | None = None,
        service_tier: str | None = None,
        continues: bool = True,
    ) -> None:
        self.model, self.stream = model, stream
        self.session_id, self.session_name = session_id, session_name
        self.pool_id, self.previous_response_id = pool_id, previous_response_id
        self.bound_ids, self.account_bound = bound_ids, account_bound
        self.background, self.named, self.references = background, named, references
        self.problem, self.max_output_tokens = problem, max_output_tokens
        self.effort, self.service_tier = effort, service_tier
        self.continues = continues

    def sent_to(self, pool_id: str | None, model: str | None) -> "Hints":
        """The same for another pool, and another name of the model. Takes a tenth of
        `dataclasses.replace`."""
        return Hints(
            model,
            self.stream,
            self.session_id,
            self.session_name,
            pool_id,
            self.previous_response_id,
            self.bound_ids,
            self.account_bound,
            self.background,
            self.named,
            self.references,
            self.problem,
            self.max_output_tokens,
            self.effort,
            self.service_tier,
            self.continues,
        )
