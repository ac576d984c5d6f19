"""What `response_facts.py` reads from an upstream answer. Pure.

Interpreted, because mypyc compiles no structs (docs/adr/0011-mypyc.md)."""

import msgspec


class Facts(msgspec.Struct, gc=False):
    """What one answer states about itself. Members it lacks are None."""

    response_id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    minted: tuple[str, ...] = ()  # ids that only the answering account can resolve

    @property
    def ids(self) -> tuple[str, ...]:
        """All minted ids, the response's own first."""
        if self.response_id is None or self.response_id in self.minted:
            return self.minted
        return (self.response_id, *self.minted)
