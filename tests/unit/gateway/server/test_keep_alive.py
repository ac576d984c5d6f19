"""When silent clients are looked at."""

import pytest

from services.gateway.server.keep_alive import ClientKeepAlive


class Clients:
    calls = 0

    def keep_alive(self) -> None:
        self.calls += 1


@pytest.mark.parametrize(
    ("longest_s", "calls"), [(0.0, [0, 0, 0, 0]), (2.0, [1, 1, 2, 3])]
)
def test_silence_is_broken_within_its_limit(longest_s: float, calls: list[int]) -> None:
    """Looked at twice in that time, because a client may speak right after a look."""
    one, other = Clients(), Clients()
    keep_alive = ClientKeepAlive(longest_s, one, other)
    counted = []
    for now in (10.0, 10.5, 11.0, 12.0):
        keep_alive.check(now)
        counted.append(one.calls)
    assert counted == calls
    assert other.calls == one.calls
