"""The meaning of addresses, in every spelling."""

import pytest

from libs.common.providers.destinations import Destinations, address_of

UPSTREAM = "https://api.openai.com/v1"
OPEN, CLOSED = Destinations(UPSTREAM), Destinations(UPSTREAM, private=False)

FORBIDDEN = [
    ("metadata", "169.254.169.254"),
    ("metadata", "169.254.169.254."),
    ("metadata", "0xa9.0xfe.0xa9.0xfe"),
    ("metadata", "0251.0376.0251.0376"),
    ("metadata", "0000251.254.169.254"),
    ("metadata", "2852039166"),
    ("metadata", "0xA9FEA9FE"),
    ("metadata", "169.254.43518"),
    ("metadata", "169.16689662"),
    ("metadata", "::ffff:169.254.169.254"),
    ("metadata", "0:0:0:0:0:ffff:a9fe:a9fe"),
    ("metadata", "::169.254.169.254"),
    ("metadata", "::ffff:0:169.254.169.254"),
    ("metadata", "2002:a9fe:a9fe::"),
    ("metadata", "64:ff9b::169.254.169.254"),
    ("metadata", "64:ff9b:1::169.254.169.254"),
    ("metadata", "64:ff9b:1:a9fe:a9:fe00::"),
    ("metadata", "2001:0:4136:e378:8000:63bf:5601:5601"),  # Teredo, client inverted
    ("metadata", "fe80::5efe:169.254.169.254"),
    ("metadata", "2a00:1450::5efe:169.254.169.254"),
    ("metadata", "2a00:1450::200:5efe:169.254.169.254"),
    ("metadata", "fd00:ec2::254"),
    ("metadata", "FD00:0EC2:0:0::254"),
    ("metadata", "fd00:ec2::254%eth0"),
    ("metadata", "fd20:ce::254"),
    ("metadata", "100.100.100.200"),
    ("metadata", "168.63.129.16"),
    ("metadata", "METADATA.google.internal"),
    ("metadata", "instance-data.ec2.internal."),
    ("link-local", "169.254.0.1"),
    ("link-local", "fe80::1"),
    ("link-local", "febf::1%lo"),
    ("unspecified", "0.0.0.0"),
    ("unspecified", "0"),
    ("unspecified", "0.1.2.3"),
    ("unspecified", "::"),
    ("unspecified", "::ffff:0.0.0.0"),
    ("not the address of a host", "224.0.0.1"),
    ("not the address of a host", "255.255.255.255"),
    ("not the address of a host", "240.0.0.1"),
    ("not the address of a host", "ff02::1"),
]


@pytest.mark.parametrize(("kind", "host"), FORBIDDEN)
def test_what_no_provider_may_be(kind: str, host: str) -> None:
    said = OPEN.host_refusal(host, 443)
    assert said is not None
    assert kind in said or "metadata" in said or "link-local" in said
    assert CLOSED.host_refusal(host, 443) is not None


PRIVATE = [
    *("10.1.2.3", "172.16.0.1", "192.168.0.1", "127.0.0.1", "127.1", "0177.0.0.1"),
    *("100.64.0.1", "::1", "fd12:3456::1", "fec0::1", "::ffff:10.0.0.1"),
    *("localhost", "LOCALHOST.", "db.localhost", "198.18.0.1", "64:ff9b::10.0.0.1"),
    "2130706433",
]
PUBLIC = [
    *("8.8.8.8", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
    *("api.openai.com", "1.example", "metadata.example", "localhost.example"),
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_for_the_operator_to_allow(host: str) -> None:
    assert OPEN.host_refusal(host, 443) is None
    said = CLOSED.host_refusal(host, 443)
    assert said is not None
    assert "PROXY_PROVIDER_PRIVATE_ADDRESSES" in said


@pytest.mark.parametrize("host", PUBLIC)
def test_all_others_are_allowed(host: str) -> None:
    assert OPEN.host_refusal(host, 443) is CLOSED.host_refusal(host, 443) is None


def test_a_sites_nat64_may_lead_to_other_hosts() -> None:
    assert OPEN.host_refusal("64:ff9b:1::8.8.8.8", 443) is None


@pytest.mark.parametrize("host", ["a.1x", "1.2.3.4.5", "256.256.256.256", "x.300", ""])
def test_what_is_no_address_is_a_name(host: str) -> None:
    assert address_of(host) is None


@pytest.mark.parametrize(
    "base_url", ["ftp://x/v1", "http:///v1", "http://x:99999/v1", "x", "http://[::1/"]
)
def test_a_base_url_that_makes_no_sense_is_refused(base_url: str) -> None:
    said = OPEN.refusal(base_url)
    assert said is not None
    assert said.startswith("is not a")


def test_the_configured_upstream_is_the_operators_word() -> None:
    rules = Destinations("http://169.254.1.1:81/v1", private=False)
    assert rules.refusal("http://169.254.1.1:81/other") is None
    for other in ("http://169.254.1.1:82/v1", "https://169.254.1.1:81/v1"):
        assert rules.refusal(other) is not None
