"""What spans are called and say."""

from typing import Any

import pytest

from libs.common.bodies.hints import Hints
from libs.common.routing.aliases import AliasTarget
from services.gateway.errors import upstream_timeout
from services.gateway.ledger.record import Record
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.server.request import Request
from services.gateway.tracing.attributes import (
    CHARS,
    of_attempt,
    of_request,
    of_upgrade,
)
from services.gateway.tracing.request_trace import AttemptTrace


def life_of(
    method: str = "POST", path: bytes = b"/responses", **fields: Any
) -> Lifecycle:
    target = b"/v1" + path
    record = Record("id-1", 0, method, target.decode(), "gw", outcome="completed",
                    status_code=200)  # fmt: skip
    life = Lifecycle(Request(method, target, []), record, 0.0)
    life.take(path, Hints(model=fields.pop("model", "m")), None)
    for name, value in fields.items():
        setattr(record, name, value)
    return life


def attempt(cause: str = "", status: int | None = None) -> AttemptTrace:
    return AttemptTrace(
        1, 7, "a", "up.example", 443, "openai", "panic", 1.0, 2.0, cause, status
    )


@pytest.mark.parametrize(
    ("method", "path", "request_name", "attempt_name"),
    [
        ("POST", b"/responses", "POST /v1/responses", "chat m"),
        ("POST", b"/responses/compact", "POST /v1/responses/compact", "chat m"),
        ("POST", b"/chat/completions", "POST /v1/chat/completions", "chat m"),
        ("POST", b"/embeddings", "POST /v1/embeddings", "embeddings m"),
        ("WS", b"/responses", "WS /v1/responses", "chat m"),
        ("GET", b"/responses/resp_1", *["GET /v1/responses/{id}"] * 2),
        ("GET", b"/models", *["GET /v1/models"] * 2),
        # What clients invent must not make names.
        ("GET", b"/invented/by/a/client", *["GET"] * 2),
        ("BREW", b"/responses", *["HTTP"] * 2),
    ],
)
def test_names(method: str, path: bytes, request_name: str, attempt_name: str) -> None:
    life = life_of(method, path)
    assert of_request(life).name == request_name
    assert of_attempt(life, attempt(), last=True).name == attempt_name


def test_a_method_that_a_client_invented_is_an_attribute_of_a_fixed_set() -> None:
    assert of_request(life_of("BREW")).attributes["http.request.method"] == "_OTHER"


@pytest.mark.parametrize(
    ("outcome", "status", "failed", "error_type"),
    [
        ("completed", 200, False, None),
        ("cancelled", 200, False, None),
        ("failed", 400, False, "bad_thing"),
        ("failed", 500, True, "bad_thing"),
        ("failed", None, True, "bad_thing"),
        ("interrupted", None, True, "bad_thing"),
    ],
)
def test_errors_of_requests(
    outcome: str, status: int | None, failed: bool, error_type: str | None
) -> None:
    """A client's error is no error of a server's span."""
    life = life_of(outcome=outcome, status_code=status, error_code="bad_thing")
    described = of_request(life)
    assert described.failed is failed
    assert described.attributes.get("error.type") == error_type


def test_an_error_without_a_code_has_its_status() -> None:
    life = life_of(outcome="failed", status_code=404)
    assert of_request(life).attributes["error.type"] == "404"
    described = of_attempt(life, attempt(), last=True)
    assert described.failed  # of a client's span, 4xx is an error
    assert described.attributes["error.type"] == "404"


def test_an_attempt_that_failed_does_not_have_the_answer_of_another() -> None:
    life = life_of(input_tokens=7, response_id="resp_1")
    described = of_attempt(life, attempt("server_error", 500), last=False)
    found = described.attributes
    assert described.failed
    assert (found["error.type"], found["http.response.status_code"]) == (
        "server_error",
        500,
    )
    assert not {"gen_ai.usage.input_tokens", "gen_ai.response.id"} & set(found)


def test_an_attempt_that_was_not_the_last_and_did_not_fail() -> None:
    described = of_attempt(life_of(outcome="failed"), attempt(), last=False)
    assert not described.failed
    assert "http.response.status_code" not in described.attributes


def test_the_gateways_own_status_is_not_the_upstreams() -> None:
    life = life_of()
    life.answers(upstream_timeout(1.0))
    described = of_attempt(life, attempt(), last=True)
    assert described.failed
    assert "http.response.status_code" not in described.attributes
    assert described.attributes["error.type"] == "upstream_timeout"


def test_an_alias_asks_for_the_upstreams_model() -> None:
    life = life_of(upstream_model="real")
    assert of_attempt(life, attempt(), last=True).name == "chat m"
    life.alias = AliasTarget("m", "p", "real", "@p", frozenset())
    found = of_attempt(life, attempt(), last=True)
    assert found.name == "chat real"
    assert found.attributes["gen_ai.request.model"] == "real"


def test_an_upgrade_asks_for_nothing() -> None:
    life = life_of("WS", model=None)
    described = of_upgrade(life)
    assert (described.name, described.failed) == ("GET /v1/responses", False)
    dialed = of_attempt(life, attempt(), last=True)
    assert dialed.name == "WS /v1/responses"
    assert not [name for name in dialed.attributes if name.startswith("gen_ai")]


def test_what_others_choose_is_cut() -> None:
    long = "x" * 5_000
    life = life_of(
        model=long, response_id=long, upstream_model=long, service_tier=long,
        error_code=long, outcome="failed", path=b"/" + long.encode(),
    )  # fmt: skip
    life.path = b"/responses"
    for described in (of_request(life), of_attempt(life, attempt(), last=True)):
        texts = [v for v in described.attributes.values() if isinstance(v, str)]
        assert max(map(len, texts)) <= CHARS
        assert len(described.name) <= CHARS + 10
