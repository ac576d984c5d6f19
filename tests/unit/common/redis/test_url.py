"""What a Redis URL means, and what is wrong with one."""

import pytest

from libs.common.redis.url import BadRedisUrl, RedisUrl, addresses, parse


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://user:p%40ss@[::1]:6379",
        "rediss://:hush@h/1?ssl_cert_reqs=none",
        "rediss://h?ssl_check_hostname=False",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_redis_py_reads_the_url_of_a_server_itself(url: str) -> None:
    assert parse(url) == RedisUrl(url, ())


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        pytest.param(
            "redis+sentinel://a:26379,b:1/mymaster/3",
            RedisUrl("redis://a:26379/3", (), (("a", 26379), ("b", 1)), "mymaster"),
            id="several",
        ),
        pytest.param(
            "redis+sentinel://u:p%2F@[::1],b/mymaster",
            RedisUrl(
                "redis://u:p%2F@[::1]/0", (), (("::1", 26379), ("b", 26379)), "mymaster"
            ),
            id="credentials of the primary, ports left out",
        ),
        pytest.param(
            "rediss+sentinel://a/m/0?sentinel_username=s&sentinel_password=w%2F"
            "&ssl_ca_certs=/ca.pem",
            RedisUrl(
                "rediss://a/0?ssl_ca_certs=%2Fca.pem",
                ("/ca.pem",),
                (("a", 26379),),
                "m",
                (("username", "s"), ("password", "w/")),
            ),
            id="TLS, and credentials of the Sentinels",
        ),
    ],
)
def test_sentinels_name_the_primary(url: str, meant: RedisUrl) -> None:
    assert parse(url) == meant


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        pytest.param(
            "redis+cluster://a:7000,b,[::1]:7002",
            RedisUrl(
                "redis://a:7000/0",
                (),
                nodes=(("a", 7000), ("b", 6379), ("::1", 7002)),
            ),
            id="several",
        ),
        pytest.param(
            "rediss+cluster://u:p%2F@a/0?ssl_ca_certs=/ca.pem&db=0",
            RedisUrl(
                "rediss://u:p%2F@a/0?ssl_ca_certs=%2Fca.pem",
                ("/ca.pem",),
                nodes=(("a", 6379),),
            ),
            id="TLS and credentials",
        ),
    ],
)
def test_some_nodes_of_a_cluster(url: str, meant: RedisUrl) -> None:
    assert parse(url) == meant
    assert addresses(url) == meant.nodes


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("127.0.0.1:6379", "is no Redis URL"),
        ("sentinel://hush@h/m", "is no Redis URL"),
        ("redis://:hush@h:port/0", "no HOST:PORT"),
        ("redis://:hush@h:0/0", "no HOST:PORT"),
        ("redis://:hush@a:1,b:2/0", "no HOST:PORT"),
        ("redis://:hush@[::1/0", "no HOST:PORT"),
        ("redis://:hush@h/zero", "no number"),
        ("redis://:hush@h/0?ssl_ca_certs=/ca", "for rediss:// only"),
        ("rediss://:hush@h/0?ssl_ca_cert=/ca", "not known, 'ssl_ca_cert'"),
        ("rediss://:hush@h/0?ssl_cert_reqs=some", "one of required, none"),
        ("redis+sentinel://:hush@h", "not the service"),
        ("redis+sentinel://:hush@h/0/m", "no number"),
        ("redis+sentinel://:hush@h:x/m", "no HOST:PORT"),
        ("redis+cluster://:hush@h:x", "no HOST:PORT"),
        ("redis+cluster://:hush@a,b:0", "no HOST:PORT"),
        ("redis+cluster://:hush@a/1", "has only 0"),
        ("redis+cluster://:hush@a?db=1", "has only 0"),
        ("redis+cluster://:hush@a?ssl_ca_certs=/ca", "for rediss:// only"),
        ("redis+cluster://:hush#hush@h", "percent-encoded"),
        ("redis://:hush@h/0?sentinel_password=hush", "not known"),
        ("redis://:hush#hush@h/0", "percent-encoded"),
        ("redis://:hush[hush@h/0", "percent-encoded"),
        ("redis://:hush?hush@h/0", "percent-encoded"),
        ("redis://:hush?hush=hush@h/0", "percent-encoded"),
        ("redis+sentinel://:hush#hush@h/m", "percent-encoded"),
    ],
)
def test_what_makes_no_sense_is_said_without_the_password(
    url: str, problem: str
) -> None:
    with pytest.raises(BadRedisUrl, match=problem) as told:
        parse(url)
    assert "hush" not in str(told.value)
