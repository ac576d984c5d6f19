"""Exceptions that several packages share. A docstring is the default message."""

LONGEST_SHOWN = 200


def shown(text: object) -> str:
    """A value of a setting, as a part of a message: in one line, and not too long."""
    line = str(text).encode("unicode_escape").decode()
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."


class ProxyError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class SettingError(ProxyError):
    """A setting is invalid. The message is one line: variable, problem, fix."""

    def __init__(self, variable: str, problem: str, fix: str) -> None:
        self.variable, self.problem, self.fix = variable, problem, fix
        super().__init__(f"{variable}: {problem}. {fix}")


class RedisAway(ProxyError):
    """Redis did not answer; the caller continues in degraded mode."""


class NoCatalogue(ProxyError):
    """Redis answers but holds no catalogue or no function library yet."""


class StoreAway(ProxyError):
    """The database did not answer; the caller keeps its data and retries."""
