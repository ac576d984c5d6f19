"""Which addresses are this machine's."""

import pytest

from libs.common.runtime.own_addresses import is_local


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("203.0.113.7", False),  # for documentation
        ("2001:db8::7", False),
    ],
)
def test_is_local(address: str, ours: bool) -> None:
    assert is_local(address) is ours
