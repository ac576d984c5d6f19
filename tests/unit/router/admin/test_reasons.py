"""Why a resource was passed over, as codes."""

import pytest

from services.router.admin.reasons import explained, why, with_why
from tests.support.processes.processes import ROOT


@pytest.mark.parametrize(
    ("text", "code", "until_ms"),
    [
        ("cooling down until 1795842059579", "cooling_down", 1795842059579),
        ("cooling down for this model until 17", "model_cooling_down", 17),
        ("its account is at its limit until 18", "account_limit", 18),
        ("key refused by the upstream", "key_refused", None),
        ("another account", "another_account", None),
        ("already tried", "already_tried", None),
        ("has its most requests in flight (4)", "busy", None),
        ("out for lunch until tomorrow", "other", None),
    ],
)
def test_each_text_has_a_code(text: str, code: str, until_ms: int | None) -> None:
    assert why(text) == {"code": code, "until_ms": until_ms}


def test_each_text_of_the_routing_functions_has_a_code() -> None:
    source = (ROOT / "services/router/functions/telemetry.lua").read_text()
    standing = source.split("local function standing")[1].split("\nend\n")[0]
    texts = [part.split("'")[0] for part in standing.split("return '")[1:]]
    texts += [part.split("'")[0] for part in standing.split("string.format('")[1:]]
    assert len(texts) == 7
    assert {why(text)["code"] for text in texts} >= {"cooling_down", "key_refused"}
    assert "other" not in {why(text)["code"] for text in texts}


def test_only_what_was_passed_over_says_why() -> None:
    candidates = [{"resource": "a"}, {"resource": "b", "refused": "already tried"}]
    told = {"code": "already_tried", "until_ms": None}
    absent = {
        "score": None, "in_flight": None, "weight": None, "remaining_requests": None,
        "remaining_tokens": None, "limit_resets_at_ms": None,
    }  # fmt: skip
    passed_over = {**absent, **candidates[1], "why": told}
    shown = [{**absent, **candidates[0], "refused": None}, passed_over]
    assert with_why(candidates) == shown
    assert explained([{"id": "d", "candidates": candidates}]) == [
        {"id": "d", "candidates": shown}
    ]
