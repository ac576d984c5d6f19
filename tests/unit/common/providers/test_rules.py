"""What holds for providers, from the settings of the whole stack."""

import pytest

from libs.common.errors import SettingError
from libs.common.providers.rules import ProviderRules, check_alert_address


def test_the_stack_knows_its_own_addresses() -> None:
    rules = ProviderRules.read(
        {
            "PROXY_PORT": "9000",
            "PROXY_REDIS_URL": "redis+sentinel://u:p@S1:1,s2/main/0",
            "PROXY_DATABASE_URL": "postgresql://u:p@db1,db2/x",
            "PROXY_ROUTER_URL": "http://router:8001",
        }
    ).destinations
    assert rules.listening == {9000, 8001, 8002, 8003}
    assert rules.ours == {
        *(("s1", 1), ("s2", 26379), ("db1", 5432), ("db2", 5432)),
        ("router", 8001),
    }
    assert rules.host_refusal("ROUTER.", 8001) is not None
    local = ProviderRules.read({"PROXY_REDIS_URL": "unix:///run/redis.sock"})
    assert local.destinations.ours == frozenset()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://169.254.169.254/x", "is a cloud's metadata service"),
        ("http://[fe80::1]/x", "is link-local"),
    ],
)
def test_alerts_do_not_go_where_providers_may_not_be(url: str, cause: str) -> None:
    environ = {
        "PROXY_ALERT_WEBHOOK_URL": url,
        "PROXY_ALERT_WEBHOOK_SECRET": "a secret of many characters",
    }
    with pytest.raises(SettingError, match=f"PROXY_ALERT_WEBHOOK_URL: its .* {cause}"):
        check_alert_address(environ)
    check_alert_address({**environ, "PROXY_ALERT_WEBHOOK_URL": "https://hooks.example"})
    check_alert_address({})
