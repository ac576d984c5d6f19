"""How an upstream key is sent: the header of a request, and those of a WebSocket
upgrade. Pure.

OpenAI takes `Authorization: Bearer KEY`. Azure OpenAI takes `api-key: KEY` on requests
and documents `Authorization: Bearer KEY` for upgrades (docs/upstream-api.md)."""

from libs.common.headers import Header

BEARER = "bearer"
API_KEY = "api_key"


def key_header(auth_type: str, key: str) -> Header:
    """The header of a request. A type of a newer version counts as `bearer`."""
    if auth_type == API_KEY:
        return b"api-key", key.encode("ascii")
    return b"authorization", b"Bearer " + key.encode("ascii")


def upgrade_key_headers(auth_type: str, key: str) -> tuple[Header, ...]:
    """The headers of an upgrade. An `api_key` is sent in both ways: Azure documents
    only the second one for sockets, and other servers may know only the first."""
    header = key_header(auth_type, key)
    if auth_type == API_KEY:
        return header, key_header(BEARER, key)
    return (header,)
