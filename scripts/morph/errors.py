"""How a deployment fails."""

from libs.common.errors import ProxyError


class Failed(ProxyError):
    """A step of the deployment failed. The message is one line."""


class Interrupted(BaseException):
    """A signal ends this process. No `except Exception` of the SDK must swallow it."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(signal_number)
