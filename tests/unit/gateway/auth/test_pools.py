"""Which pool a request goes to, by its proxy key."""

import pytest

from libs.common.proxy_keys import Principal
from services.gateway.auth.pools import pool_for
from services.gateway.errors import Problem


@pytest.mark.parametrize(
    ("principal", "asked", "pool"),
    [
        pytest.param(Principal(id="k"), None, None, id="any: none named"),
        pytest.param(Principal(id="k"), "a", "a", id="any: as named"),
        pytest.param(Principal(id="k", pool_id="p"), "a", "p", id="pinned: named"),
        pytest.param(Principal(id="k", pool_id="p"), None, "p", id="pinned"),
        pytest.param(
            Principal(id="k", pool_id="p", pools=("a",)), "a", "p", id="pin wins"
        ),
        pytest.param(Principal(id="k", pools=("a",)), None, "a", id="one: none named"),
        pytest.param(
            Principal(id="k", pools=("b", "a")), None, "b", id="several: the first"
        ),
        pytest.param(Principal(id="k", pools=("b", "a")), "a", "a", id="one of them"),
    ],
)
def test_pools(principal: Principal, asked: str | None, pool: str | None) -> None:
    assert pool_for(principal, asked) == pool


def test_another_pool_is_refused_and_the_allowed_ones_named() -> None:
    with pytest.raises(Problem) as caught:
        pool_for(Principal(id="k", pools=("b", "a")), "c")
    problem = caught.value
    assert (problem.status, problem.code) == (403, "pool_not_allowed")
    assert (problem.param, "Its pools: b, a." in problem.message) == ("pool_id", True)
