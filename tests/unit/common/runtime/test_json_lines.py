"""Output of programs that do not write JSON."""

import json
import logging
from typing import Any

import pytest

from libs.common.runtime.json_lines import LONGEST, Formatter, Translator, json_line

VALKEY = b"1:M 28 Nov 2026 10:00:00.000 # Server initialized\n"


def told(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        (VALKEY, "warning", "Server initialized"),
        (VALKEY.replace(b"#", b"*"), "info", "Server initialized"),
        (VALKEY.replace(b"#", b"."), "debug", "Server initialized"),
        (b'a "quoted" \xff line\r\n', "info", 'a "quoted" \ufffd line'),
        (b"{not an object\n", "info", "{not an object"),
    ],
)
def test_text_becomes_an_object(line: bytes, level: str, message: str) -> None:
    (found,) = told(Translator("redis").feed(line))
    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "action": "output",
        "level": level,
        "service": "redis",
        "message": message,
    }


def test_an_object_stays_as_it_is_and_empty_lines_are_left_out() -> None:
    line = b'{"action": "x"}\n'
    assert Translator("gateway").feed(b"\n" + line + b"  \n") == line


def test_a_line_may_come_in_pieces() -> None:
    translator = Translator("redis")
    assert translator.feed(b"one\ntw")[-1:] == b"\n"
    (second,) = told(translator.feed(b"o\nthr"))
    (third,) = told(translator.end())
    assert (second["message"], third["message"]) == ("two", "thr")
    assert translator.end() == b""


def test_a_line_without_an_end_is_cut() -> None:
    translator = Translator("redis")
    (cut,) = told(translator.feed(b"x" * (LONGEST + 5)))
    assert len(cut["message"]) == LONGEST
    assert translator.end() == b""


def test_records_of_logging_have_their_exception() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "why %s", ("not",), None)
    found = json.loads(Formatter("router").format(record))
    assert (found["message"], found["level"]) == ("why not", "error")
    assert found["action"] == "library"


def test_a_line_is_one_line() -> None:
    assert "\n" not in json_line("x", "info", "two\nlines")
