"""One attempt to use another tenant's id, and what it must lead to."""

import gzip
import secrets
from dataclasses import dataclass, field

import zstandard

MODEL = "gpt-5.5"
# How each refusal looks to the client.
NOT_FOUND = "404, as of an id that does not exist"
PREVIOUS = "400 previous_response_not_found"
ENDPOINT = "403 endpoint_not_isolated"
LIST = "403 list_not_isolated"
UNREADABLE = "400 invalid_json"


def new_id(kind: str) -> str:
    """An id in the upstream's format."""
    return f"{kind}{'' if kind[-1] in '-_' else '_'}{secrets.token_hex(24)}"


@dataclass(frozen=True)
class Attack:
    """One way to use an id. `kind` is the id's prefix; ID is replaced in the path and
    the body, and OWN_x by an object of the attacker's own."""

    what: str
    kind: str
    method: str
    path: str
    result: str
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    reference: bool = False  # clients may invent this kind of id: unknown ones pass
    # Encodes the body after the ids are filled in.
    written: str = "utf-8"

    def encoded(self, body: str) -> bytes:
        if self.written == "gzip":
            return gzip.compress(body.encode())
        if self.written == "zstd":
            return zstandard.compress(body.encode())
        return body.encode(self.written)


@dataclass(frozen=True)
class FrameAttack:
    """The same for a socket's frame."""

    what: str
    kind: str
    frame: str
    result: str
    binary: bool = False
