"""Asking a service whether it is ready."""

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from libs.cli.readiness import readiness
from tests.support.processes.ports import free_port


class Answers(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"no catalogue")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def service() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}
    )
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_ready(service: str) -> None:
    assert readiness(service) is None


def test_not_ready_says_why(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "status", 503)

    assert readiness(service) == "status 503, no catalogue"


def test_nothing_there() -> None:
    assert (readiness(f"http://127.0.0.1:{free_port()}") or "").startswith(
        "no answer at"
    )


def test_something_that_is_no_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        said = readiness(url)
        thread.join()
    assert said == f"no answer at {url} (its answer is not HTTP)"


def test_containers_ask_often_so_it_imports_little() -> None:
    asked = "import libs.cli.process.probe, sys; print('email' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"
