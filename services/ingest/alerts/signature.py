"""Signs alerts as Standard Webhooks 1.0.0 does (www.standardwebhooks.com). Pure."""

import base64
import hashlib
import hmac

PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """The key of a secret: what follows `whsec_` is base64, anything else is the key
    itself."""
    if secret.startswith(PREFIX):
        return base64.b64decode(secret.removeprefix(PREFIX))
    return secret.encode()


def signed_headers(key: bytes, id_: str, unix_s: int, body: bytes) -> dict[str, str]:
    """The headers of an alert. The signature covers its id, the time and the body."""
    signed = f"{id_}.{unix_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": str(unix_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
