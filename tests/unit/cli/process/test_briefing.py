"""The briefing of the readiness listener."""

from pathlib import Path

from libs.cli.process.briefing import Briefing


def test_the_listener_reads_what_up_wrote(tmp_path: Path) -> None:
    written = Briefing(1.5, [["redis", "embedded"]], {"gateway": "http://x"}, "logs")
    written.write(tmp_path)
    assert Briefing.read(tmp_path) == written
