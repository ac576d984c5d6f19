"""Exceptions that several packages share. A docstring is the default message."""


class ProxyError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class SettingError(ProxyError):
    """A setting is invalid. The message is one line: variable, problem, fix."""

    def __init__(self, variable: str, problem: str, fix: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {problem}. {fix}")


class RedisAway(ProxyError):
    """Redis did not answer; the caller continues in degraded mode."""


class NoCatalogue(ProxyError):
    """Redis answers but holds no catalogue or no function library yet."""


class StoreAway(ProxyError):
    """The database did not answer; the caller keeps its data and retries."""
