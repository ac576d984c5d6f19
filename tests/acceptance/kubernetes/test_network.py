"""What the NetworkPolicies let through, by the rules of Kubernetes: a pod that a policy
selects sends and receives only what some policy allows."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.acceptance.kubernetes.conftest import VALUES, rendered
from tests.support.kubernetes.chart import (
    PREFIX,
    Document,
    load,
    of_kind,
    pod_specs,
    render,
)

OUTSIDE = "203.0.113.7"  # an address on the internet
METADATA = (
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16"),
    *("192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fe80::1", "fd20:ce::254"),
)


@dataclass
class Network:
    """The pods and policies of one rendering."""

    documents: list[Document]

    def labels(self, service: str) -> dict[str, str]:
        template = dict(pod_specs(self.documents))[f"{PREFIX}-{service}"]
        labels: dict[str, str] = template["metadata"]["labels"]
        return labels

    def policies(self, service: str) -> list[dict[str, Any]]:
        labels = self.labels(service).items()
        return [
            policy["spec"]
            for policy in of_kind(self.documents, "NetworkPolicy").values()
            if policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        ]

    def sends(self, service: str, to: str, port: int, protocol: str = "TCP") -> bool:
        return self._passes(service, "egress", "to", to, port, protocol)

    def receives(self, service: str, sender: str, port: int) -> bool:
        return self._passes(service, "ingress", "from", sender, port, "TCP")

    def reaches(self, service: str, other: str, port: int) -> bool:
        """Whether a connection between two pods passes the policies of both."""
        return self.sends(service, other, port) and self.receives(other, service, port)

    def _passes(
        self, service: str, way: str, peers: str, other: str, port: int, protocol: str
    ) -> bool:
        policies = self.policies(service)
        rules = [rule for policy in policies for rule in policy.get(way, [])]
        return not policies or any(
            self._peer(rule.get(peers), other)
            and _port(rule.get("ports"), port, protocol)
            for rule in rules
        )

    def _peer(self, peers: list[dict[str, Any]] | None, other: str) -> bool:
        if peers is None:
            return True
        is_address = other[0].isdigit() or ":" in other
        for peer in peers:
            if is_address:
                if _in_block(peer.get("ipBlock"), other):
                    return True
            elif "podSelector" in peer and "namespaceSelector" not in peer:
                wanted = peer["podSelector"]["matchLabels"]
                if wanted.items() <= self.labels(other).items():
                    return True
            elif peer == {"namespaceSelector": {}}:
                return True
        return False


def _in_block(block: dict[str, Any] | None, address: str) -> bool:
    if block is None:
        return False
    there = ip_address(address)
    return there in ip_network(block["cidr"]) and not any(
        there in ip_network(excluded) for excluded in block.get("except", [])
    )


def _port(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    return ports is None or any(
        rule["port"] == port and rule["protocol"] == protocol for rule in ports
    )


@pytest.fixture
def trial() -> Network:
    return Network(rendered("bundled"))


@pytest.fixture
def production() -> Network:
    return Network(rendered("existing-secret"))


def test_each_pod_is_selected_by_one_policy(documents: list[Document]) -> None:
    network = Network(documents)
    for name, _ in pod_specs(documents):
        assert len(network.policies(name.removeprefix(f"{PREFIX}-"))) == 1


def test_the_parts_reach_each_other(trial: Network) -> None:
    connections = {
        (service, other)
        for service in ("gateway", "router", "health", "ingest")
        for other, port in (("router", 8001), ("redis", 6379), ("postgres", 5432))
        if trial.reaches(service, other, port)
    }
    assert connections == {
        ("gateway", "router"),
        ("gateway", "redis"),
        ("router", "redis"),
        ("router", "postgres"),
        ("health", "redis"),
        ("ingest", "redis"),
        ("ingest", "postgres"),
    }


def test_clients_reach_the_gateway_only(trial: Network) -> None:
    assert trial.receives("gateway", OUTSIDE, 8000)
    closed = {"router": 8001, "health": 8002, "ingest": 8003}
    for service, port in {**closed, "redis": 6379, "postgres": 5432}.items():
        assert not trial.receives(service, OUTSIDE, port), service


def test_gateways_and_health_reach_upstreams(production: Network) -> None:
    reach = {
        service
        for service in ("gateway", "router", "health", "ingest")
        if production.sends(service, OUTSIDE, 443)
    }
    assert reach == {"gateway", "health"}
    assert not production.sends("gateway", OUTSIDE, 80)
    assert production.sends("gateway", "2001:db8::1", 443)


def test_databases_elsewhere_are_reached_by_their_ports(production: Network) -> None:
    for service in ("gateway", "router", "health", "ingest"):
        assert production.sends(service, "10.0.0.5", 6379)
    assert production.sends("router", "10.0.0.5", 5432)
    assert production.sends("ingest", "10.0.0.5", 5432)
    assert not production.sends("gateway", "10.0.0.5", 5432)
    assert not production.sends("health", "10.0.0.5", 5432)


@pytest.mark.parametrize("address", METADATA)
@pytest.mark.parametrize("service", ["gateway", "router", "health", "ingest"])
def test_metadata_services_are_out_of_reach(
    production: Network, service: str, address: str
) -> None:
    ports = (80, 443, 5432, 6379, 8080)
    assert [p for p in ports if production.sends(service, address, p)] == []


def test_a_names_server_may_be_link_local(production: Network) -> None:
    assert production.sends("gateway", "169.254.20.10", 53, "UDP")


def test_ports_of_configured_upstreams_and_proxies_are_open() -> None:
    network = Network(rendered("everything"))
    for port in (443, 9000, 3128):
        assert network.sends("gateway", OUTSIDE, port)
        assert network.sends("health", OUTSIDE, port)
    plain = render(
        {"existingSecret": "s", "config": {"PROXY_UPSTREAM_BASE_URL": "http://vllm/v1"}}
    )
    assert Network(plain).sends("gateway", OUTSIDE, 80)


def test_changed_ports_are_the_ones_that_are_open() -> None:
    network = Network(rendered("everything"))
    assert network.receives("gateway", OUTSIDE, 9100)
    assert network.reaches("gateway", "router", 9101)
    assert not network.receives("gateway", OUTSIDE, 8000)


def test_metrics_are_read_by_whom_the_values_name() -> None:
    documents = rendered("everything")
    monitoring = load(VALUES["everything"])["networkPolicy"]["metricsFrom"][0]
    policies = of_kind(documents, "NetworkPolicy")
    for service in ("router", "health", "ingest"):
        (rule,) = policies[f"{PREFIX}-{service}"]["spec"]["ingress"]
        assert monitoring in rule["from"]


def test_peers_can_be_narrowed() -> None:
    here = [{"ipBlock": {"cidr": "10.0.0.5/32"}}]
    policy = {"redis": {"to": here, "ports": [6380]}, "upstream": {"to": here}}
    network = Network(render({"existingSecret": "s", "networkPolicy": policy}))
    assert network.sends("gateway", "10.0.0.5", 6380)
    assert network.sends("gateway", "10.0.0.5", 443)
    assert not network.sends("gateway", "10.0.0.6", 6380)
    assert not network.sends("gateway", OUTSIDE, 443)
    assert network.sends("ingest", "10.0.0.6", 5432)


def test_they_can_be_left_out() -> None:
    documents = render({"existingSecret": "s", "networkPolicy": {"enabled": False}})
    assert of_kind(documents, "NetworkPolicy") == {}
