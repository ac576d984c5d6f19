"""What holds for providers, from the settings of the whole stack."""

from libs.common.providers.rules import ProviderRules


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
