"""Ids and sealed blobs that carry the account they belong to.

They can be checked without storage, so that they survive a restart, like the
service's."""

import base64
import binascii
import functools
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

_SECRET = b"simulated upstream"
_RANDOM_HEX = 32
_TAG_HEX = 8
_CHECK_HEX = 9
_BODY_HEX = _RANDOM_HEX + _TAG_HEX + 1 + _CHECK_HEX
_MAC_BYTES = 32
# Version byte, time, tag and random bytes: the layout of a Fernet token, so that the
# blob starts with `gAAAA` like a real one.
_HEAD_BYTES = 1 + 8 + 8


@functools.lru_cache(maxsize=10_000)
def account_tag(account: str) -> str:
    """The account's tag inside its ids: eight hex characters."""
    return hashlib.blake2s(account.encode(), key=_SECRET, digest_size=4).hexdigest()


def _check(body: str) -> str:
    return hashlib.blake2s(body.encode(), key=_SECRET).hexdigest()[:_CHECK_HEX]


def random_hex(length: int) -> str:
    return secrets.token_hex(-(-length // 2))[:length]


@dataclass(frozen=True)
class Origin:
    """What a minted id contains."""

    tag: str
    stored: bool


@dataclass(frozen=True)
class Mint:
    """Makes the ids and sealed blobs of one account."""

    account: str

    def new_id(self, prefix: str, *, stored: bool = True) -> str:
        """An id in the service's format: a prefix and 50 hex characters."""
        body = random_hex(_RANDOM_HEX) + account_tag(self.account) + "01"[stored]
        return f"{prefix}_{body}{_check(body)}"

    def call_id(self) -> str:
        return f"call_{random_hex(24)}"

    def seal(self, payload_bytes: int = 256) -> str:
        """An opaque blob in place of encrypted reasoning or a compaction."""
        head = b"\x80" + int(time.time()).to_bytes(8, "big")
        tag = account_tag(self.account).encode()
        blob = head + tag + secrets.token_bytes(payload_bytes)
        mac = hmac.digest(_SECRET, blob, "sha256")
        return base64.urlsafe_b64encode(blob + mac).decode()


def origin(item_id: str) -> Origin | None:
    """Where an id was minted; None if the id is not the simulator's."""
    body = item_id.rpartition("_")[2]
    if len(body) != _BODY_HEX:
        return None
    claim, check = body[:-_CHECK_HEX], body[-_CHECK_HEX:]
    if check != _check(claim):
        return None
    tag = claim[_RANDOM_HEX : _RANDOM_HEX + _TAG_HEX]
    return Origin(tag=tag, stored=claim.endswith("1"))


def seal_tag(blob: str) -> str | None:
    """The tag of the account that sealed a blob; None if the blob is damaged."""
    try:
        raw = base64.b64decode(blob.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not hmac.compare_digest(hmac.digest(_SECRET, body, "sha256"), mac):
        return None
    return body[_HEAD_BYTES - 8 : _HEAD_BYTES].decode("ascii", "replace")
