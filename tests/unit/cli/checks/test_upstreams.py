"""What doctor finds out about upstreams. None of it stops a start."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from libs.cli.checks import upstreams
from libs.cli.checks.finding import Context, Level
from tests.support.processes.ports import free_port


@contextmanager
def answering(status: int) -> Iterator[str]:
    """An upstream that answers everything with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def of_upstream(url: str) -> Context:
    key = {"OPENAI_API_KEY_3": "sk-hush"}
    return Context({**key, "PROXY_UPSTREAM_BASE_URL": url}, 2.0)


@pytest.mark.parametrize(
    ("status", "level", "says"),
    [
        (200, Level.OK, "answers and accepts the key"),
        (401, Level.FAILED, "rejects the key (status 401). Set OPENAI_API_KEY_3 to"),
        (403, Level.FAILED, "rejects the key (status 403). Set OPENAI_API_KEY_3 to"),
        (404, Level.FAILED, "answers GET /models with status 404. Check PROXY_UPST"),
    ],
)
def test_an_upstream_that_answers(status: int, level: Level, says: str) -> None:
    with answering(status) as url:
        (finding,) = upstreams.upstreams(of_upstream(url))
    assert finding.level is level
    assert says in str(finding)
    assert "hush" not in str(finding)


@pytest.mark.parametrize("host", ["127.0.0.1", "a" * 70])
def test_an_upstream_that_does_not_answer(host: str) -> None:
    url = f"http://{host}:{free_port()}/v1"
    (finding,) = upstreams.upstreams(of_upstream(url))
    assert finding.level is Level.FAILED
    assert "does not answer" in finding.state


def test_without_a_key_there_is_none() -> None:
    (finding,) = upstreams.upstreams(Context({}, 1.0))
    assert finding.state == "no key is set; `up` starts a simulated upstream"


def test_host_names_of_the_dashboard() -> None:
    (finding,) = upstreams.browsers(Context({"PROXY_ALLOWED_HOSTS": "a.example"}, 1.0))
    assert finding.state.endswith("addresses: a.example")
    (finding,) = upstreams.browsers(Context({}, 1.0))
    assert finding.state.endswith("none (PROXY_ALLOWED_HOSTS is empty)")


def test_rules_of_providers() -> None:
    database = {"PROXY_SQLITE_URL": "sqlite:////nowhere/x.sqlite3"}
    (finding,) = upstreams.providers(Context(database, 1.0))
    assert finding.state == (
        "keys may be in variables that match PROVIDER_*; private addresses are allowed"
    )
