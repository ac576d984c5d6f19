"""What the chart renders is valid for Kubernetes, and each pod is as it should be."""

import base64
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.kubernetes.conftest import VALUES, rendered
from tests.support.kubernetes.chart import (
    CHART,
    PREFIX,
    SERVICES,
    Document,
    helm,
    load,
    of_kind,
    pod_specs,
    render,
)

# The oldest version in Chart.yaml, and the newest whose schema is known.
VERSIONS = ("1.30", "1.34", "1.37")
# Kinds of other projects; no schema of them is in a package.
FOREIGN = {"ExternalSecret", "ServiceMonitor", "PrometheusRule"}


def containers(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for name, template in pod_specs(documents):
        for container in template["spec"]["containers"]:
            yield name, container


@pytest.mark.parametrize("version", VERSIONS)
def test_each_document_is_valid(documents: list[Document], version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kinds = set()
    for document in documents:
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, version, strict=True)
            kinds.add(document["kind"])
    assert {"Deployment", "Service", "ConfigMap", "NetworkPolicy"} <= kinds


def test_the_schemas_know_every_field() -> None:
    """A misspelt field is found: without `strict` it would pass."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    service = of_kind(rendered("bundled"), "Service")[f"{PREFIX}-router"]
    misspelt = {**service, "spec": {**service["spec"], "selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="selektor"):
        kubernetes_validate.validate(misspelt, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_helm_lint_finds_nothing(name: str) -> None:
    report = helm().lint(CHART, load(VALUES[name]), strict=True)
    severe = [m for m in report["messages"] if m["severity"] > 1]  # 1: information
    assert (report["errors"], severe) == ([], [])


def test_each_document_has_a_name_of_its_own(documents: list[Document]) -> None:
    names = [(d["kind"], d["metadata"]["name"]) for d in documents]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for _, name in names)


def test_long_release_names_leave_room_for_suffixes() -> None:
    documents = render(load(VALUES["bundled"]), name="a" * 53)
    assert max(len(d["metadata"]["name"]) for d in documents) <= 52


def test_each_container_has_probes_and_limits(documents: list[Document]) -> None:
    for _, container in containers(documents):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe], (container["name"], probe)
        for amounts in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][amounts])


def test_probes_ask_for_life_and_readiness(documents: list[Document]) -> None:
    for name, container in containers(documents):
        if name.removeprefix(f"{PREFIX}-") in SERVICES:
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_each_pod_complies_with_the_restricted_standard(
    documents: list[Document],
) -> None:
    for _, template in pod_specs(documents):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_our_containers_run_as_the_user_of_the_image(documents: list[Document]) -> None:
    for name, template in pod_specs(documents):
        if name.removeprefix(f"{PREFIX}-") in SERVICES:
            assert template["spec"]["securityContext"]["runAsUser"] == 10001


def test_volumes_are_bounded_and_mounted(documents: list[Document]) -> None:
    claims = {
        d["metadata"]["name"]: [
            c["metadata"]["name"] for c in d["spec"].get("volumeClaimTemplates", [])
        ]
        for d in documents
        if d["kind"] == "StatefulSet"
    }
    for name, template in pod_specs(documents):
        volumes = template["spec"]["volumes"]
        assert all(v["emptyDir"]["sizeLimit"] for v in volumes if "emptyDir" in v)
        named = {v["name"] for v in volumes} | set(claims.get(name, []))
        for container in template["spec"]["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} == named


class TestSelectors:
    def test_each_workload_selects_its_pods_only(
        self, documents: list[Document]
    ) -> None:
        pods = dict(pod_specs(documents))
        for name, workload in of_kind(documents, "Deployment", "StatefulSet").items():
            wanted = workload["spec"]["selector"]["matchLabels"]
            assert selected(pods, wanted) == {name}

    def test_each_service_finds_its_pods_and_their_port(
        self, documents: list[Document]
    ) -> None:
        pods = dict(pod_specs(documents))
        for name, service in of_kind(documents, "Service").items():
            found = selected(pods, service["spec"]["selector"])
            assert found == {name.removesuffix("-pods")}
            ports = pods[found.pop()]["spec"]["containers"][0]["ports"]
            targets = {port["targetPort"] for port in service["spec"]["ports"]}
            assert targets == {port["name"] for port in ports}

    def test_budgets_and_spread_constraints_select_one_workload(
        self, documents: list[Document]
    ) -> None:
        pods = dict(pod_specs(documents))
        for name, budget in of_kind(documents, "PodDisruptionBudget").items():
            wanted = budget["spec"]["selector"]["matchLabels"]
            assert selected(pods, wanted) == {name}
        for name, template in pods.items():
            for spread in template["spec"].get("topologySpreadConstraints", []):
                wanted = spread["labelSelector"]["matchLabels"]
                assert selected(pods, wanted) == {name}

    def test_budgets_never_block_a_single_replica(
        self, documents: list[Document]
    ) -> None:
        budgets = of_kind(documents, "PodDisruptionBudget")
        for name, workload in of_kind(documents, "Deployment").items():
            if workload["spec"].get("replicas") == 1:
                assert name not in budgets

    def test_the_autoscaler_scales_the_gateway(self) -> None:
        for values in ("journals", "everything"):
            documents = rendered(values)
            (scaler,) = of_kind(documents, "HorizontalPodAutoscaler").values()
            target = scaler["spec"]["scaleTargetRef"]
            workload = of_kind(documents, target["kind"])[target["name"]]
            assert "replicas" not in workload["spec"]

    def test_the_monitor_scrapes_each_pod_once(self) -> None:
        documents = rendered("everything")
        (monitor,) = of_kind(documents, "ServiceMonitor").values()
        selector = monitor["spec"]["selector"]
        (among,) = selector["matchExpressions"]
        scraped = [
            name
            for name, service in of_kind(documents, "Service").items()
            if selector["matchLabels"].items() <= service["metadata"]["labels"].items()
            and service["metadata"]["labels"][among["key"]] in among["values"]
        ]
        assert sorted(scraped) == sorted(f"{PREFIX}-{service}" for service in SERVICES)


def selected(pods: dict[str, Document], labels: dict[str, str]) -> set[str]:
    """The workloads some of whose pods have `labels`."""
    return {
        name
        for name, template in pods.items()
        if labels.items() <= template["metadata"]["labels"].items()
    }


class TestStop:
    """A pod has time for preStop, the drain and what follows it."""

    def test_the_grace_period_holds_the_drain(self, documents: list[Document]) -> None:
        config = of_kind(documents, "ConfigMap")
        for name, template in pod_specs(documents):
            if name not in config:
                continue
            drain = float(config[name]["data"].get("PROXY_DRAIN_SECONDS", "10"))
            (container,) = template["spec"]["containers"]
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
            grace = template["spec"]["terminationGracePeriodSeconds"]
            # docs/operate.md: at least the drain time plus 5 s.
            assert grace >= sleep.get("seconds", 0) + math.ceil(drain) + 5

    def test_what_has_clients_waits_before_it_refuses_them(
        self, documents: list[Document]
    ) -> None:
        for name, container in containers(documents):
            if name in {f"{PREFIX}-gateway", f"{PREFIX}-router"}:
                assert container["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5

    def test_rollouts_never_reduce_what_is_available(
        self, documents: list[Document]
    ) -> None:
        for name, workload in of_kind(documents, "Deployment").items():
            if name != f"{PREFIX}-redis":
                update = workload["spec"]["strategy"]["rollingUpdate"]
                assert update == {"maxUnavailable": 0, "maxSurge": 1}


class TestJournals:
    def test_in_an_emptydir_they_have_room_for_a_predecessor(self) -> None:
        assert journal_volume({}) == "2112Mi"  # twice 1 GiB, and 64 MiB

    def test_the_room_follows_size_and_workers(self) -> None:
        config = {"PROXY_JOURNAL_MAX_BYTES": 16777216, "PROXY_GATEWAY_WORKERS": 3}
        assert journal_volume(config) == "160Mi"

    def test_persistent_ones_are_never_deleted_automatically(self) -> None:
        gateway = of_kind(rendered("journals"), "StatefulSet")[f"{PREFIX}-gateway"]
        assert gateway["spec"]["persistentVolumeClaimRetentionPolicy"] == {
            "whenDeleted": "Retain",
            "whenScaled": "Retain",
        }
        (claim,) = gateway["spec"]["volumeClaimTemplates"]
        assert claim["spec"]["storageClassName"] == "fast"
        assert claim["spec"]["resources"]["requests"]["storage"] == "8Gi"


def journal_volume(config: dict[str, Any]) -> str:
    documents = render({"existingSecret": "s", "config": config})
    gateway = dict(pod_specs(documents))[f"{PREFIX}-gateway"]
    volumes = {v["name"]: v for v in gateway["spec"]["volumes"]}
    limit: str = volumes["data"]["emptyDir"]["sizeLimit"]
    return limit


class TestSecrets:
    def test_none_is_in_a_config_map(self, documents: list[Document]) -> None:
        secrets = {
            base64.b64decode(value).decode()
            for secret in of_kind(documents, "Secret").values()
            for value in secret["data"].values()
        }
        text = str([d for d in documents if d["kind"] != "Secret"])
        assert [value for value in secrets if value in text] == []

    def test_external_ones_are_what_the_pods_read(self) -> None:
        documents = rendered("external-secrets")
        (external,) = of_kind(documents, "ExternalSecret").values()
        target = external["spec"]["target"]["name"]
        assert external["spec"]["secretStoreRef"] == {
            "name": "vault",
            "kind": "ClusterSecretStore",
        }
        assert external["spec"]["data"][0] == {
            "secretKey": "OPENAI_API_KEY_1",
            "remoteRef": {"key": "proxy/openai", "property": "first"},
        }
        assert external["spec"]["dataFrom"] == [{"extract": {"key": "proxy/providers"}}]
        for _, container in containers(documents):
            assert {"secretRef": {"name": target}} in container["envFrom"]

    def test_a_pod_does_not_start_without_its_urls(self) -> None:
        for _, container in containers(rendered("existing-secret")):
            named = {
                e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"]
            }
            assert named == {
                "PROXY_REDIS_URL": {"name": "proxy-secrets", "key": "PROXY_REDIS_URL"},
                "PROXY_DATABASE_URL": {
                    "name": "proxy-secrets",
                    "key": "PROXY_DATABASE_URL",
                },
            }

    def test_urls_of_operators_come_from_their_secrets(self) -> None:
        for _, container in containers(rendered("journals")):
            named = {
                e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"]
            }
            assert named["PROXY_REDIS_URL"] == {"name": "redis-app", "key": "url"}
            assert named["PROXY_DATABASE_URL"] == {"name": "postgres-app", "key": "uri"}


class TestRolls:
    """A changed variable restarts the pods of the services that read it."""

    def test_a_changed_variable_changes_the_checksum_of_its_service(self) -> None:
        values = {"existingSecret": "s"}
        changed = {**values, "router": {"config": {"PROXY_LOG_LEVEL": "debug"}}}
        before, after = checksums(values), checksums(changed)
        assert {name for name in before if before[name] != after[name]} == {
            f"{PREFIX}-router"
        }

    def test_a_new_chart_alone_restarts_nothing(
        self, documents: list[Document]
    ) -> None:
        for _, template in pod_specs(documents):
            labels = template["metadata"]["labels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)

    def test_a_changed_secret_changes_all(self) -> None:
        values = load(VALUES["bundled"])
        changed = {**values, "secrets": {"OPENAI_API_KEYS": "sk-third-1234567890"}}
        before, after = checksums(values), checksums(changed)
        assert all(before[name] != after[name] for name in before)


def checksums(values: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        name: template["metadata"]["annotations"]
        for name, template in pod_specs(render(values))
        if name.removeprefix(f"{PREFIX}-") in SERVICES
    }
