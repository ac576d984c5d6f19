"""The root of our exceptions. A docstring is the default message."""


class ProxyError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class SettingError(ProxyError):
    """A setting makes no sense: one line naming the variable and the fix."""

    def __init__(self, variable: str, problem: str, fix: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {problem}. {fix}")


class RedisAway(ProxyError):
    """Redis did not answer; the caller goes on degraded."""


class NoCatalogue(ProxyError):
    """Redis answers but holds no catalogue or no function library yet."""


class StoreAway(ProxyError):
    """The database did not answer; keep what you have and try again."""
