"""What policies of keys and teams allow. Over real sockets and HTTP:
tests/integration/security/test_policies.py."""

from typing import Any

import pytest

from libs.common.bodies.hints import MULTIPART, UNREADABLE, Hints, read_hints
from libs.common.proxy_keys import Policy
from services.gateway.auth.policy import check_caller, check_request
from services.gateway.errors import Problem

RESPONSES, CHAT = b"/responses", b"/chat/completions"
GPT = Policy(models=("gpt-5*", "fast"))


def code(call: Any, *args: Any) -> str | None:
    try:
        call(*args)
    except Problem as problem:
        found = problem
    else:
        return None
    assert found.status == (400 if found.code == "invalid_json" else 403)
    return found.code


def asked(policy: Policy, hints: Hints, path: bytes = RESPONSES, **more: Any) -> Any:
    method = more.get("method", "POST")
    return code(check_request, (policy,), method, path, hints, more.get("sent", ()))


@pytest.mark.parametrize(
    ("model", "sent", "allowed"),
    [
        ("gpt-5.5", (), True),
        ("fast", ("o9",), True),  # the operator decides where an alias leads
        ("slow", ("gpt-5.5-mini",), True),
        ("slow", ("gpt-5.5-mini", "o9"), False),  # any of them may serve
        ("slow", ("o9",), False),
        ("GPT-5.5", (), False),
        ("xgpt-5", (), False),
        (None, (), False),
    ],
)
def test_models(model: str | None, sent: tuple[str, ...], allowed: bool) -> None:
    found = asked(GPT, Hints(model=model), sent=sent)
    assert found == (None if allowed else "model_not_allowed")


@pytest.mark.parametrize(
    "path",
    [b"/embeddings", b"/responses/compact", b"/batches", b"/audio/transcriptions"],
)
def test_requests_that_need_a_model_must_name_it(path: bytes) -> None:
    assert asked(GPT, Hints(problem=MULTIPART), path) == "model_not_allowed"
    assert asked(GPT, Hints(model="gpt-5"), path) is None
    assert asked(GPT, Hints(), path, method="GET") is None


@pytest.mark.parametrize("path", [b"/responses/resp_1/cancel", b"/files"])
def test_other_requests_name_none(path: bytes) -> None:
    assert asked(GPT, Hints(), path) is None
    assert asked(GPT, Hints(model="o9"), path) == "model_not_allowed"


@pytest.mark.parametrize(
    "path", [b"/responses/", b"//responses", b"/res%70onses", b"/Responses"]
)
def test_an_endpoint_may_be_spelled_in_another_way(path: bytes) -> None:
    ceiling = Policy(max_reasoning_effort="low")
    assert asked(ceiling, Hints(effort="high"), path) == "reasoning_effort_not_allowed"
    other = Policy(endpoints=("files",))
    assert code(check_caller, (other,), path, "") == "endpoint_not_allowed"


@pytest.mark.parametrize(
    ("most", "effort", "allowed"),
    [
        ("low", "minimal", True),
        ("low", "low", True),
        ("low", "medium", False),
        ("low", None, False),  # counts as medium
        ("medium", None, True),
        ("xhigh", "utmost", False),  # not known
    ],
)
def test_efforts(most: str, effort: str | None, allowed: bool) -> None:
    policy = Policy(max_reasoning_effort=most)
    for path in (RESPONSES, CHAT):
        found = asked(policy, Hints(effort=effort), path)
        assert found == (None if allowed else "reasoning_effort_not_allowed")
    assert asked(policy, Hints(effort=effort), b"/embeddings") is None


@pytest.mark.parametrize(
    ("tier", "allowed"),
    [("flex", True), (None, True), ("auto", True), ("priority", False)],
)
def test_tiers(tier: str | None, allowed: bool) -> None:
    policy = Policy(service_tiers=("flex",))
    found = asked(policy, Hints(service_tier=tier))
    assert found == (None if allowed else "service_tier_not_allowed")


@pytest.mark.parametrize(
    ("limit", "allowed"), [(9, True), (10, False), (None, False), (0, False)]
)
def test_limits_of_answers(limit: int | None, allowed: bool) -> None:
    found = asked(Policy(max_output_tokens=9), Hints(max_output_tokens=limit))
    assert found == (None if allowed else "max_output_tokens_not_allowed")


def test_what_cannot_be_read_is_not_allowed() -> None:
    for policy in (Policy(service_tiers=("flex",)), Policy(max_output_tokens=9)):
        assert asked(policy, Hints(problem=UNREADABLE)) == "invalid_json"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (b"/responses", True),
        (b"/responses/resp_1/cancel", True),
        (b"/responsesx", False),
        (b"/models", True),
        (b"/models/gpt-5.5", True),
        (b"/embeddings", False),
        (b"/chat/completions", True),
        (b"/chat", False),
    ],
)
def test_endpoints(path: bytes, allowed: bool) -> None:
    policy = Policy(endpoints=("responses", "chat/completions"))
    found = code(check_caller, (policy,), path, "10.0.0.1")
    assert found == (None if allowed else "endpoint_not_allowed")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("10.2.0.1", False),
        ("2001:db8::7", True),
        ("", False),
        ("unix", False),
    ],
)
def test_addresses(address: str, allowed: bool) -> None:
    policy = Policy(ip_allow=("10.1.0.0/16", "2001:db8::/32"))
    found = code(check_caller, (policy,), RESPONSES, address)
    assert found == (None if allowed else "address_not_allowed")


def test_the_key_and_its_team_must_both_allow() -> None:
    both = (Policy(models=("gpt-*",)), Policy(models=("*-mini",)))
    for model, found in [("gpt-5-mini", None), ("gpt-5", "x"), ("o9-mini", "x")]:
        said = code(check_request, both, "WS", RESPONSES, Hints(model=model))
        assert said == (found and "model_not_allowed")


def test_no_rule_allows_everything() -> None:
    assert code(check_caller, (Policy(),), b"/any", "") is None
    assert asked(Policy(), Hints(problem=UNREADABLE)) is None


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        (RESPONSES, b'{"reasoning":{"effort":"high"}}', ("high", None, None)),
        (CHAT, b'{"reasoning_effort":"low","max_tokens":7}', ("low", None, 7)),
        (CHAT, b'{"max_completion_tokens":9,"max_tokens":7}', (None, None, 9)),
        (
            RESPONSES,
            b'{"service_tier":"flex","max_output_tokens":3}',
            (None, "flex", 3),
        ),
        (RESPONSES, b'{"service_tier":7,"reasoning":"high"}', (None, None, None)),
        (RESPONSES, b'{"max_output_tokens":1e9}', (None, None, None)),
        (RESPONSES, b'{"max_output_tokens":"9"}', (None, None, None)),
    ],
)
def test_what_a_body_says(path: bytes, body: bytes, found: tuple[Any, ...]) -> None:
    """A value of another type counts as absent; upstreams refuse it."""
    hints = read_hints(path, [], body, isolate=True)
    assert (hints.effort, hints.service_tier, hints.max_output_tokens) == found
    large = body[:-1] + b',"input":"' + b"x" * 60_000 + b'"}'
    hints = read_hints(path, [], large, isolate=True)
    assert (hints.effort, hints.service_tier, hints.max_output_tokens) == found
