"""Log lines of programs that do not write JSON: a line of text becomes one object, a
line that is an object stays as it is. Imports little."""

import json
import logging
import re
from datetime import UTC, datetime

OUTPUT = "output"  # the action of a line that was text
LONGEST = 16_384  # bytes; a longer line is cut
# "12:M 28 Nov 2026 10:00:00.000 * text", by Redis and Valkey; the sign is the level.
_VALKEY = re.compile(r"\d+:[MSXC] \d\d \w{3} \d{4} [\d:.]+ ([.*#-]) (.*)")
_LEVELS = {".": "debug", "-": "info", "*": "info", "#": "warning"}


def json_line(service: str, level: str, message: str, action: str = OUTPUT) -> str:
    """One line, without its end."""
    return json.dumps(
        {
            "action": action,
            "level": level,
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "service": service,
            "message": message,
        }
    )


class Translator:
    """Translates the output of a program, piece by piece."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The complete lines so far, translated."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            lines.append(self._rest)
            self._rest = b""
        return b"".join(map(self._line, lines))

    def end(self) -> bytes:
        """A last line without an end."""
        rest, self._rest = self._rest, b""
        return self._line(rest)

    def _line(self, line: bytes) -> bytes:
        text = line[:LONGEST].decode("utf-8", "replace").rstrip()
        if not text:
            return b""
        if text.startswith("{") and text.endswith("}"):
            return f"{text}\n".encode()
        found = _VALKEY.fullmatch(text)
        level, message = "info", text
        if found is not None:
            level, message = _LEVELS[found[1]], found[2]
        return f"{json_line(self._service, level, message)}\n".encode()


class Formatter(logging.Formatter):
    """Formats records of the standard library's logging."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        return json_line(
            self._service, record.levelname.lower(), super().format(record), "library"
        )
