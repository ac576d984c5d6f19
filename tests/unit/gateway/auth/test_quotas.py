from libs.common.budgets import Budget
from libs.common.proxy_keys import Principal
from services.gateway.auth import quotas
from services.gateway.auth.quotas import Quotas

DAY = 86_400_000
KEY = Principal(id="k", budgets=(Budget("key:k", tokens=9, window="day"),))


def test_limits_are_encoded_once_in_a_window() -> None:
    made = Quotas()
    first = made.of(KEY, 0)
    assert made.of(KEY, DAY - 1) is first
    assert list(made) == [first]
    after = made.of(KEY, DAY)
    assert after.starts == (DAY,)


def test_a_changed_key_has_other_limits() -> None:
    made = Quotas()
    made.of(KEY, 0)
    changed = Principal(id="k", requests_per_minute=2)
    assert made.of(changed, 0).requests_per_minute == 2


def test_few_are_kept(monkeypatch: object) -> None:
    made = Quotas()
    for number in range(3):
        made.of(Principal(id=f"k{number}", requests_per_minute=1), 0)
    assert quotas.MOST_KEPT > 3
