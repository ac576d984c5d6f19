"""The packed calls of a request, compared with what hiredis makes of them."""

from typing import Any

import hiredis
import pytest

from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.packing import flat, packed
from libs.common.routing.budgets import quota_at
from libs.common.routing.call_forms import Names
from libs.common.routing.types import OTHERS, Asker, Place
from tests.support.memory.called_functions import Redis
from tests.support.values.asks import made_ask, made_release

QUOTA = quota_at("k", 1, None, (), 0)
PLACE = Place("share", 5)


def same(command: tuple[Any, ...]) -> bool:
    expected: bytes = hiredis.pack_command(tuple(flat(command)))
    return packed(command) == expected


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="the usual"),
        pytest.param({"lease": '{"model":"ü"'.encode()}, id="a body in UTF-8"),
        pytest.param({"pool_id": "ü"}, id="a pool that is not ASCII"),
        pytest.param({"session": "ü"}, id="a digest that is not ASCII"),
        pytest.param({"tokens": None, "previous": "one"}, id="no limits"),
    ],
)
@pytest.mark.parametrize("ids", [(), ("id1", "id-2"), ("ü",)])
def test_acquire(given: dict[str, Any], ids: tuple[str, ...]) -> None:
    asker = Asker(tenant="team_1", strict=True, kinds="n" * len(ids))
    ask = made_ask(asker=asker, bound=ids, **given)
    functions = Redis().functions
    call = functions._acquire_call("rpx_acquire_v3", ask, "", b'{"head":"\xc3\xbc"', 5)
    assert same((*call, *ids))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="the usual"),
        pytest.param({"event": None}, id="the request goes on"),
        pytest.param({"event": '{"model":"ü"}'.encode()}, id="a body in UTF-8"),
        pytest.param({"model": "ü"}, id="a model that is not ASCII"),
        pytest.param({"limits": "ü"}, id="limits that are not ASCII"),
        pytest.param({"quota": QUOTA, "tokens": 5, "nanos": 7}, id="limits of its key"),
        pytest.param({"quota": QUOTA, "tokens": 2**20}, id="more than fits"),
    ],
)
@pytest.mark.parametrize("learned", [(), ("id1", "id-2"), ("ü",)])
def test_release(given: dict[str, Any], learned: tuple[str, ...]) -> None:
    release = made_release("one", learned=learned, **given)
    assert same(Redis().functions._released(release))


@pytest.mark.parametrize(
    ("given", "plain", "counted"),
    [
        pytest.param({"place": PLACE}, "queue_v1", "queue_v2", id="waits"),
        pytest.param({"socket": "one"}, "pin_v4", "pin_v5", id="on a socket"),
        pytest.param({"turn": OTHERS}, "target_v1", "target_v2", id="other targets"),
    ],
)
def test_the_function_of_a_request(
    given: dict[str, Any], plain: str, counted: str
) -> None:
    for namespace in ("rpx", "b_2"):
        names = Names(Keys(namespace))
        assert names.of(made_ask(**given)) == f"{namespace}_{plain}"
        assert names.of(made_ask(quota=QUOTA, **given)) == f"{namespace}_{counted}"
    assert Names(DEFAULT).of(made_ask(quota=QUOTA)) == "rpx_acquire_v5"
