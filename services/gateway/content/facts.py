"""What `response_facts.py` reads from an upstream answer. Pure."""

from dataclasses import dataclass


@dataclass(init=False, slots=True)
class Facts:
    """What one answer states about itself. Members it lacks are None.

    Compiled: see libs/common/routing/types/attempts.py for the `__init__`."""

    response_id: str | None
    model: str | None
    service_tier: str | None
    error_code: str | None
    error_message: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    total_tokens: int | None
    minted: tuple[str, ...]  # ids that only the answering account can resolve

    def __init__(  # noqa: PLR0913 - of all fields
        self,
        response_id: str | None = None,
        model: str | None = None,
        service_tier: str | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
        input_tokens: int | None = None,
        cached_tokens: int | None = None,
        output_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        total_tokens: int | None = None,
        minted: tuple[str, ...] = (),
    ) -> None:
        self.response_id, self.model = response_id, model
        self.service_tier = service_tier
        self.error_code, self.error_message = error_code, error_message
        self.input_tokens, self.cached_tokens = input_tokens, cached_tokens
        self.output_tokens, self.reasoning_tokens = output_tokens, reasoning_tokens
        self.total_tokens, self.minted = total_tokens, minted

    @property
    def ids(self) -> tuple[str, ...]:
        """All minted ids, the response's own first."""
        if self.response_id is None or self.response_id in self.minted:
            return self.minted
        return (self.response_id, *self.minted)
