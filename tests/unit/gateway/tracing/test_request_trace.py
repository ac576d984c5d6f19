"""What is noted of attempts."""

from services.gateway.tracing.request_trace import AttemptTrace, RequestTrace


def attempt(number: int = 1, resource_id: str = "a") -> AttemptTrace:
    return AttemptTrace(number, 7, resource_id, "host", 443, "openai", "reason", 1.0)


def trace(*attempts: AttemptTrace) -> RequestTrace:
    return RequestTrace(1, 2, None, True, (), list(attempts))


def test_an_attempt_goes_on_if_it_is_the_same() -> None:
    assert not trace().continued(1, "a")
    assert trace(attempt()).continued(1, "a")
    assert not trace(attempt()).continued(2, "a")
    assert not trace(attempt()).continued(1, "b")


def test_an_attempt_that_failed_does_not_go_on() -> None:
    one = trace(attempt())
    one.end_last(2.0, "server_error", 500)
    assert not one.continued(1, "a")


def test_only_the_last_one_ends_and_only_once() -> None:
    one = trace(attempt(1), attempt(2))
    one.end_last(2.0, "server_error", 500)
    one.end_last(3.0)
    first, last = one.attempts
    assert first.ended is None
    assert (last.ended, last.cause, last.status) == (2.0, "server_error", 500)
    trace().end_last(1.0)
