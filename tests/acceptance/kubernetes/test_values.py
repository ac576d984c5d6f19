"""Values that cannot work are refused, in one line that says what to set."""

from typing import Any

import pytest

from tests.acceptance.kubernetes.conftest import VALUES
from tests.support.kubernetes.chart import Refused, load, render

MINIMAL = {"existingSecret": "s"}
BUNDLED = {
    "redis": {"bundled": {"enabled": True}},
    "database": {"bundled": {"enabled": True, "password": "correct-horse"}},
}
EXTERNAL = {
    "enabled": True,
    "secretStoreRef": {"name": "vault"},
    "data": {"OPENAI_API_KEY_1": {"key": "k"}},
}
SCALED = {"enabled": True, "minReplicas": 2, "maxReplicas": 4}
KEY = "sk-contradictory-1234567890"

# What contradicts, and what the message must name.
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "there is no Redis: set existingSecret"),
    "no database": (
        {"redis": {"bundled": {"enabled": True}}},
        "there is no database: set existingSecret",
    ),
    "two Redis": (
        {**BUNDLED, "secrets": {"PROXY_REDIS_URL": "redis://r/0"}},
        "Redis is configured 2 times (bundled, given)",
    ),
    "bundled Redis and its URL in config": (
        {**BUNDLED, "config": {"PROXY_REDIS_URL": "redis://r/0"}},
        "Redis is configured 2 times (bundled, given)",
    ),
    "bundled Redis and an operator's": (
        {
            **BUNDLED,
            "redis": {
                "bundled": {"enabled": True},
                "urlFrom": {"name": "a", "key": "b"},
            },
        },
        "Redis is configured 2 times (bundled, urlFrom)",
    ),
    "two databases": (
        {**BUNDLED, "secrets": {"DATABASE_URL": "postgresql://p/x"}},
        "the database is configured 2 times (bundled, given)",
    ),
    "SQLite": (
        {**MINIMAL, "config": {"PROXY_SQLITE_URL": "sqlite:////data/x"}},
        "PROXY_SQLITE_URL cannot be used here",
    ),
    "bundled Postgres without a password": (
        {
            "redis": {"bundled": {"enabled": True}},
            "database": {"bundled": {"enabled": True}},
        },
        "database.bundled.password is empty",
    ),
    "half of urlFrom": (
        {**MINIMAL, "redis": {"urlFrom": {"name": "a"}}},
        "redis.urlFrom needs both name and key",
    ),
    "external secrets that are off": (
        {**MINIMAL, "externalSecrets": {**EXTERNAL, "enabled": False}},
        "externalSecrets.enabled is false",
    ),
    "external secrets without a store": (
        {**MINIMAL, "externalSecrets": {"enabled": True, "extract": [{"key": "k"}]}},
        "externalSecrets.secretStoreRef.name is empty",
    ),
    "external secrets without content": (
        {
            **MINIMAL,
            "externalSecrets": {"enabled": True, "secretStoreRef": {"name": "v"}},
        },
        "without data and extract",
    ),
    "a secret twice": (
        {
            **MINIMAL,
            "externalSecrets": EXTERNAL,
            "secrets": {"OPENAI_API_KEY_1": KEY},
        },
        "OPENAI_API_KEY_1 is in secrets and in externalSecrets.data",
    ),
    "a variable in config and in secrets": (
        {
            **MINIMAL,
            "config": {"HTTPS_PROXY": "http://p:3128"},
            "secrets": {"HTTPS_PROXY": f"http://u:{KEY}@p:3128"},
        },
        "HTTPS_PROXY is in config and in secrets",
    ),
    "ingest in the gateway": (
        {**MINIMAL, "config": {"PROXY_IN_PROCESS_WORKER": True}},
        "PROXY_IN_PROCESS_WORKER cannot be true here",
    ),
    "a drain that is no number": (
        {**MINIMAL, "config": {"PROXY_DRAIN_SECONDS": "10s"}},
        "PROXY_DRAIN_SECONDS is not a number of seconds",
    ),
    "a port that is no number": (
        {**MINIMAL, "config": {"PROXY_PORT": "http"}},
        "gateway: its port is not a number",
    ),
    "a relative data directory": (
        {**MINIMAL, "config": {"PROXY_DATA_DIR": "./data"}},
        "PROXY_DATA_DIR must be an absolute path",
    ),
    "services that disagree on a port": (
        {**MINIMAL, "router": {"config": {"PROXY_ROUTER_PORT": 9001}}},
        "PROXY_ROUTER_PORT is in router.config: all services must agree",
    ),
    "more replicas than the most": (
        {**MINIMAL, "gateway": {"autoscaling": {**SCALED, "minReplicas": 9}}},
        "gateway.autoscaling.minReplicas (9) exceeds maxReplicas (4)",
    ),
    "autoscaling by nothing": (
        {**MINIMAL, "gateway": {"autoscaling": {**SCALED, "cpuPercent": 0}}},
        "gateway.autoscaling has no metric",
    ),
    "autoscaling by a part of the requests": (
        {
            **MINIMAL,
            "config": {"PROXY_GATEWAY_WORKERS": 2},
            "gateway": {"autoscaling": {**SCALED, "inFlight": {"enabled": True}}},
        },
        "needs PROXY_GATEWAY_WORKERS=1",
    ),
    "less memory than bodies may take": (
        {
            **MINIMAL,
            "gateway": {
                "resources": {
                    "requests": {"cpu": 1, "memory": "1Gi"},
                    "limits": {"memory": "1.05Gi"},
                }
            },
        },
        "gateway.resources.limits.memory (1.05Gi) does not exceed",
    ),
    "less room than journals may take": (
        {**MINIMAL, "gateway": {"journal": {"persistent": True, "size": "2G"}}},
        "gateway.journal.size (2G) has no room",
    ),
    "in-flight without autoscaling": (
        {**MINIMAL, "gateway": {"autoscaling": {"inFlight": {"enabled": True}}}},
        "gateway.autoscaling.enabled is false",
    ),
    "ingress without a host": (
        {**MINIMAL, "ingress": {"enabled": True}},
        "ingress.hosts is empty",
    ),
    "a host without ingress": (
        {**MINIMAL, "ingress": {"hosts": ["p.example.com"]}},
        "ingress.enabled is false",
    ),
    "annotations of nothing": (
        {**MINIMAL, "serviceAccount": {"create": False, "annotations": {"a": "b"}}},
        "serviceAccount.create is false",
    ),
    "a traffic policy without outside traffic": (
        {**MINIMAL, "gateway": {"service": {"externalTrafficPolicy": "Local"}}},
        "needs gateway.service.type NodePort or LoadBalancer",
    ),
    "tag and digest": (
        {**MINIMAL, "image": {"tag": "1", "digest": f"sha256:{'a' * 64}"}},
        "image.tag and image.digest are both set",
    ),
}

# What the schema refuses, and what its message must name.
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt value": ({"gatway": {}}, "'gatway' not allowed"),
    "a misspelt variable": (
        {"config": {"PROXY_REQEST_TIMEOUT_SECONDS": 1}},
        "'PROXY_REQEST_TIMEOUT_SECONDS' not allowed",
    ),
    "a misspelt secret": ({"secrets": {"PROXY_ADMIN_TOKN": KEY}}, "PROXY_ADMIN_TOKN"),
    "an upstream key in config": (
        {"config": {"OPENAI_API_KEY_3": KEY}},
        "'OPENAI_API_KEY_3' not allowed",
    ),
    "the admin token in a service's config": (
        {"router": {"config": {"PROXY_ADMIN_TOKEN": KEY}}},
        "'PROXY_ADMIN_TOKEN' not allowed",
    ),
    "a password in config": (
        {"config": {"PROXY_REDIS_URL": f"redis://:{KEY}@r/0"}},
        "/config/PROXY_REDIS_URL",
    ),
    "a proxy's password in config": (
        {"config": {"HTTPS_PROXY": f"http://u:{KEY}@p:1"}},
        "/config/HTTPS_PROXY",
    ),
    "a list": (
        {"config": {"PROXY_ALLOWED_HOSTS": ["a"]}},
        "/config/PROXY_ALLOWED_HOSTS",
    ),
    "no ingest": ({"ingest": {"replicas": 0}}, "/ingest/replicas"),
    "no limits": ({"router": {"resources": {"limits": None}}}, "/router/resources"),
    "metadata services as upstreams": (
        {"networkPolicy": {"never": ["10.0.0.0/8"]}},
        "/networkPolicy/never",
    ),
    "a password that is no part of a URL": (
        {"database": {"bundled": {"password": "a b@c/d:e"}}},
        "/database/bundled/password",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused_in_one_line(name: str) -> None:
    values, named = CONTRADICTIONS[name]
    with pytest.raises(Refused) as refused:
        render(values)
    message = str(refused.value)
    assert named in message
    assert "\n" not in message
    assert KEY not in message


@pytest.mark.parametrize("name", MALFORMED)
def test_the_schema_refuses_unknown_names_and_types(name: str) -> None:
    values, named = MALFORMED[name]
    with pytest.raises(Refused) as refused:
        render({**MINIMAL, **values})
    assert named in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("limit", ["1.1Gi", "1200M", "1200000k", 1200000000])
def test_memory_may_be_lowered_together(limit: str | int) -> None:
    lower = {"PROXY_BODY_MEMORY_BYTES": 134217728, "PROXY_CAPTURE_QUEUE_BYTES": 0}
    requests = {"cpu": "500m", "memory": "128Mi"}
    resources = {"requests": requests, "limits": {"memory": limit, "cpu": None}}
    assert render({**MINIMAL, "gateway": {"resources": resources}})
    resources = {"requests": requests, "limits": {"memory": "256Mi"}}
    assert render({**MINIMAL, "config": lower, "gateway": {"resources": resources}})


@pytest.mark.parametrize("name", sorted(VALUES))
def test_what_the_tests_render_is_accepted(name: str) -> None:
    assert render(load(VALUES[name]))


def test_values_of_a_parent_chart_are_accepted() -> None:
    assert render({**MINIMAL, "global": {"imageRegistry": "r"}})


@pytest.mark.parametrize(
    ("given", "read"),
    [(67108864, "67108864"), (0.25, "0.25"), (True, "true"), ("2,1", "2,1"), (0, "0")],
)
def test_values_reach_variables_as_they_were_written(given: Any, read: str) -> None:
    documents = render({**MINIMAL, "config": {"PROXY_REDACT": given}})
    data = {
        d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"
    }
    assert {config["PROXY_REDACT"] for config in data.values()} == {read}


def test_a_service_overrides_what_all_share() -> None:
    documents = render(
        {
            **MINIMAL,
            "config": {"PROXY_HEALTH_CHECK_ENABLED": True},
            "health": {"config": {"PROXY_HEALTH_CHECK_ENABLED": False}},
        }
    )
    data = {
        d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"
    }
    read = {name: config["PROXY_HEALTH_CHECK_ENABLED"] for name, config in data.items()}
    assert {name for name, value in read.items() if value == "false"} == {
        "demo-responses-proxy-health"
    }
