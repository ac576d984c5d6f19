"""What a kubelet makes of the rendered pods: their environment, and the same containers
for Docker Compose, as far as Compose can express it."""

import base64
import sys
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from libs.cli.plan import SIMULATED_KEYS
from tests.support.kubernetes.chart import (
    PREFIX,
    SERVICES,
    Document,
    of_kind,
    pod_specs,
    render,
)

Content = Mapping[str, Mapping[str, str]]

# A trial with the simulated upstream.
TRIAL: dict[str, Any] = {
    "image": {"repository": "responses-proxy", "tag": "lab"},
    "redis": {"bundled": {"enabled": True}},
    "database": {"bundled": {"enabled": True, "password": "correct-horse"}},
    "secrets": {"OPENAI_API_KEYS": ",".join(SIMULATED_KEYS)},
    "config": {
        "OPENAI_RESOURCE_ACCOUNT_IDS": ",".join(SIMULATED_KEYS.values()),
        "PROXY_UPSTREAM_BASE_URL": "http://upstream:9000/v1",
    },
}


def environments(documents: list[Document]) -> dict[str, dict[str, str]]:
    """The environment of each of our services' containers, by service."""
    return {
        service: environment(documents, template["spec"]["containers"][0])
        for name, template in pod_specs(documents)
        if (service := name.removeprefix(f"{PREFIX}-")) in SERVICES
    }


def environment(documents: list[Document], container: Document) -> dict[str, str]:
    """`envFrom`, where the last source has priority, then `env`. Secrets that are not
    part of the rendering count as empty."""
    maps, secrets = _contents(documents)
    read: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            read |= maps[source["configMapRef"]["name"]]
        else:
            read |= secrets.get(source["secretRef"]["name"], {})
    for entry in container.get("env", []):
        if "value" in entry:
            read[entry["name"]] = entry["value"]
        else:
            key = entry["valueFrom"]["secretKeyRef"]
            if key["name"] in secrets:
                read[entry["name"]] = secrets[key["name"]][key["key"]]
    return read


def _contents(documents: list[Document]) -> tuple[Content, Content]:
    """ConfigMaps and Secrets. Those of an ExternalSecret have the names of the places
    in the store as values."""
    maps = {
        name: found["data"] for name, found in of_kind(documents, "ConfigMap").items()
    }
    secrets = {
        name: {k: base64.b64decode(v).decode() for k, v in secret["data"].items()}
        for name, secret in of_kind(documents, "Secret").items()
    }
    for external in of_kind(documents, "ExternalSecret").values():
        secrets[external["spec"]["target"]["name"]] = {
            entry["secretKey"]: entry["remoteRef"]["key"]
            for entry in external["spec"].get("data", [])
        }
    return maps, secrets


def as_compose(documents: list[Document]) -> dict[str, Any]:
    """One Compose service for each pod, with the name of its Kubernetes Service."""
    services = {
        name: _compose_service(documents, template["spec"])
        for name, template in pod_specs(documents)
    }
    gateway = services[f"{PREFIX}-gateway"]
    gateway["ports"] = ["127.0.0.1:8000:8000"]
    services["upstream"] = {
        "image": gateway["image"],
        "command": ["simulate", "--host", "0.0.0.0", "--port", "9000"],
    }
    return {"name": "rpx-lab-pods", "services": services}


def _compose_service(documents: list[Document], pod: Document) -> dict[str, Any]:
    (container,) = pod["containers"]
    security = pod["securityContext"]
    user, group = security["runAsUser"], security["runAsGroup"]
    limits = container["resources"]["limits"]
    port = container["ports"][0]["containerPort"]
    probe = container["readinessProbe"].get("exec", {}).get("command") or [
        *("python", "-P", "-m", "libs.cli.process.probe", str(port)),
    ]
    return {
        "image": container["image"],
        **({"command": container["args"]} if "args" in container else {}),
        "environment": {
            # Compose would replace variables in values.
            name: value.replace("$", "$$")
            for name, value in environment(documents, container).items()
        },
        "user": f"{user}:{group}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": [
            # Like a volume with fsGroup, but also for the users of stand-in images.
            f"{mount['mountPath']}:uid={user},gid={group},mode=1777"
            for mount in container["volumeMounts"]
        ],
        "mem_limit": limits["memory"].removesuffix("i").lower(),
        "memswap_limit": limits["memory"].removesuffix("i").lower(),
        "stop_grace_period": f"{pod.get('terminationGracePeriodSeconds', 30)}s",
        "healthcheck": {
            "test": ["CMD", *probe],
            "interval": "2s",
            "timeout": "3s",
            "retries": 60,
        },
    }


if __name__ == "__main__":
    yaml.safe_dump(as_compose(render(TRIAL)), sys.stdout, sort_keys=False)
