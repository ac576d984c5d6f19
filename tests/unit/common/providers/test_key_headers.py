"""The headers that carry an upstream key."""

import pytest

from libs.common.providers.key_headers import key_header, upgrade_key_headers

AUTHORIZATION = (b"authorization", b"Bearer k")


@pytest.mark.parametrize(
    ("auth_type", "request_header", "upgrade"),
    [
        ("bearer", AUTHORIZATION, (AUTHORIZATION,)),
        ("api_key", (b"api-key", b"k"), ((b"api-key", b"k"), AUTHORIZATION)),
        ("of a newer version", AUTHORIZATION, (AUTHORIZATION,)),
    ],
)
def test_how_a_key_is_sent(
    auth_type: str,
    request_header: tuple[bytes, bytes],
    upgrade: tuple[tuple[bytes, bytes], ...],
) -> None:
    assert key_header(auth_type, "k") == request_header
    assert upgrade_key_headers(auth_type, "k") == upgrade
