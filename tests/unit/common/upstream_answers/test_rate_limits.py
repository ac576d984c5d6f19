"""Limits in headers of answers, and in the text of a 429."""

import pytest

from libs.common.headers import Header
from libs.common.upstream_answers.rate_limits import (
    LONGEST_MS,
    Told,
    duration_ms,
    is_of_account,
    told_by,
)

AZURE_TOKENS = (
    "Your requests to gpt-5.1 for gpt-5.1 in East US 2 have exceeded the token rate "
    "limit for your current AIServices S0 pricing tier. Please retry after 60 seconds."
)
AZURE_CALLS = (
    "Requests to the Responses_Create Operation under Azure OpenAI API version v1 have "
    "exceeded call rate limit of your current OpenAI S0 pricing tier."
)


def named(kind: str, limit: str, remaining: str, reset: str) -> list[Header]:
    given = {"limit": limit, "remaining": remaining, "reset": reset}
    return [
        (f"x-ratelimit-{part}-{kind}".encode(), value.encode())
        for part, value in given.items()
    ]


def read(*headers: Header) -> tuple[Told | None, list[str]]:
    ignored: list[str] = []
    return told_by(headers, ignored.append), ignored


def test_limits_that_are_named() -> None:
    headers = named("requests", "500", "499", "120ms")
    headers += named("tokens", "30000", "0", "6m0s")
    told, ignored = read((b"date", b"x"), *headers)
    assert told == Told(500, 499, 120, 30_000, 0, 360_000)
    assert not ignored
    assert told.encoded(7) == "7 500 499 120 30000 0 360000"


def test_one_of_two() -> None:
    told, ignored = read(*named("tokens", "10", "11", "0s"))
    assert told == Told(limit_tokens=10, remaining_tokens=10, tokens_reset_ms=0)
    assert not ignored
    assert read((b"content-type", b"x")) == (None, [])


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "reason"),
    [
        ("-1", "5", "1s", "negative"),
        ("10", "-5", "1s", "negative"),
        ("10", "5", "-1s", "negative"),
        ("ten", "5", "1s", "odd_number"),
        ("1e3", "5", "1s", "odd_number"),
        ("9" * 30, "5", "1s", "odd_number"),
        ("10", "5", "1", "odd_unit"),
        ("10", "5", "3 fortnights", "odd_unit"),
        ("10", "5", "", "odd_unit"),
        ("10", "5", "400d", "too_far"),
        ("10", "5", "9" * 12 + "h", "too_far"),
        ("0", "0", "1s", "incomplete"),
    ],
)
def test_a_limit_that_is_ignored(
    limit: str, remaining: str, reset: str, reason: str
) -> None:
    good = named("requests", "9", "8", "1s")
    told, ignored = read(*named("tokens", limit, remaining, reset), *good)
    assert told == Told(9, 8, 1000)
    assert ignored == [reason]


def test_an_incomplete_limit_is_ignored() -> None:
    assert read(*named("tokens", "1", "1", "1s")[:2]) == (None, ["incomplete"])


def test_azure_names_resets_in_seconds() -> None:
    headers = named("tokens", "150000", "149984", "300")
    assert read(*headers) == (None, ["odd_unit"])
    told, ignored = read((b"apim-request-id", b"7c5f"), *headers)
    assert (told, ignored) == (
        Told(limit_tokens=150_000, remaining_tokens=149_984, tokens_reset_ms=300_000),
        [],
    )
    # What it says when it does not know.
    unknown = named("tokens", "-1", "-1", "0")
    assert read((b"apim-request-id", b"7c5f"), *unknown) == (None, ["negative"])


def test_a_reset_counts_for_an_hour_at_most() -> None:
    told, ignored = read(*named("requests", "9", "0", "1d2h"))
    assert told == Told(9, 0, LONGEST_MS)
    assert not ignored


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        (b"20ms", 20), (b"1s", 1_000), (b"6m0s", 360_000), (b"1d2h", 93_600_000),
        (b"8.64s", 8_640), (b"1h2m3s", 3_723_000), (b"", None), (b"1w", None),
        (b"1", None), (b"s", None), (b"1s ", None), (b"1.s", None), (b"1s" * 40, None),
    ],
)  # fmt: skip
def test_durations(text: bytes, ms: float | None) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    ("remaining", "plenty"), [("5", True), ("4", False), ("9", True), ("0", False)]
)
def test_whether_plenty_is_left(remaining: str, plenty: bool) -> None:
    told, _ = read(*named("tokens", "10", remaining, "1s"))
    assert told is not None
    assert told.is_plenty is plenty


@pytest.mark.parametrize(
    ("message", "of_account"),
    [
        ("Rate limit reached for gpt-5.5 in organization org-x on tokens per", True),
        ("Rate limit reached for gpt-5.5 in project proj_x on requests", True),
        ("Rate limit reached for gpt-5.5 on requests per min", False),
        (AZURE_TOKENS, True),
        (AZURE_CALLS, True),
        ("Requests have exceeded the rate limit", False),
        ("You sent too many requests in organization x", False),
        ("", False),
        (None, False),
    ],
)
def test_whose_limit_a_429_names(message: str | None, of_account: bool) -> None:
    assert is_of_account(message) is of_account
