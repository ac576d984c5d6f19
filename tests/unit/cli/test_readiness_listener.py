"""What the readiness listener prints, and how it checks readiness."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.cli.process.briefing import Briefing
from libs.cli.readiness_listener import (
    Problem,
    announcement,
    last_lines,
    obituary,
    readiness,
)
from libs.common.admin_token import ensure_file
from libs.common.runtime.json_lines import json_line
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


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))

    assert last_lines(log)[-1] == "line 99"
    assert len(last_lines(log)) < 20
    assert last_lines(tmp_path / "absent.log") == []


def test_an_obituary_quotes_the_logs(tmp_path: Path) -> None:
    (tmp_path / "router.log").write_text("no module\n")
    briefing = Briefing(0.0, [], {}, str(tmp_path))

    said = obituary(briefing, Problem("router could not be started", ("router",)))

    assert said.splitlines() == [
        "responses-proxy: router could not be started",
        f"Last lines of {tmp_path}/router.log:",
        "  | no module",
        "responses-proxy: stopping all services",
    ]


def test_the_banner_shows_the_link_of_a_token_that_up_keeps(tmp_path: Path) -> None:
    gateway = f"http://127.0.0.1:{free_port()}"
    addresses = {"gateway": gateway}
    token = ensure_file(tmp_path)
    kept = Briefing(0.0, [], addresses, "logs", str(tmp_path))
    assert f"  dashboard  {gateway}/#token={token}\n" in announcement(kept)
    configured = Briefing(0.0, [], addresses, "logs")
    assert f"  dashboard  {gateway}/\n" in announcement(configured)


def test_what_was_printed_as_text_is_shown_as_text(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    lines = [
        json_line("router", "info", "Traceback ..."),
        '{"action": "other"}',
        "[]",
    ]
    log.write_text("\n".join(lines))
    assert last_lines(log) == ["Traceback ...", *lines[1:]]
