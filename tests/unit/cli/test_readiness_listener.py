"""What the readiness listener prints."""

from pathlib import Path

from libs.cli.process.briefing import Briefing
from libs.cli.readiness_listener import (
    Problem,
    announcement,
    last_lines,
    obituary,
)
from libs.common.admin_token import ensure_file
from libs.common.runtime.json_lines import json_line
from tests.support.processes.ports import free_port


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
