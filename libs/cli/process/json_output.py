"""Makes supervisord write JSON: its own log, and the output of programs that do not."""

from collections.abc import Mapping
from typing import Any

from supervisor import dispatchers
from supervisor.options import ServerOptions

from libs.common.runtime.json_lines import Translator, json_line

_LEVELS = {"CRIT": "critical", "ERRO": "error", "WARN": "warning", "INFO": "info"}


class JsonDispatcher(dispatchers.POutputDispatcher):  # type: ignore[misc]  # untyped library
    """Translates what a program prints, before it goes to the program's log."""

    def __init__(self, process: Any, event_type: Any, fd: int) -> None:
        super().__init__(process, event_type, fd)
        self._translator = Translator(process.config.name)

    def _log(self, data: bytes) -> None:
        super()._log(self._translator.feed(data))

    def close(self) -> None:
        super()._log(self._translator.end())
        super().close()


class _Format:
    """Stands in for a format string of supervisord's log."""

    def __mod__(self, fields: Mapping[str, str]) -> str:
        level = _LEVELS.get(fields["levelname"], "debug")
        return json_line("supervisord", level, fields["message"], "supervisor") + "\n"


class JsonOptions(ServerOptions):  # type: ignore[misc]  # untyped library
    """Options of a supervisord that logs JSON."""

    def make_logger(self) -> None:
        lists: list[list[str]] = [
            self.parse_criticals,
            self.parse_warnings,
            self.parse_infos,
        ]
        said = [list(lines) for lines in lists]
        for lines in lists:
            lines.clear()  # they would be logged as text
        super().make_logger()
        for handler in self.logger.handlers:
            handler.setFormat(_Format())
        logger = self.logger
        for lines, log in zip(
            said, (logger.critical, logger.warn, logger.info), strict=True
        ):
            for line in lines:
                log(line)


def translate_output() -> None:
    """From now on, programs that are started have their output translated."""
    dispatchers.POutputDispatcher = JsonDispatcher
