"""The simulated upstream in the test's own process."""

from collections.abc import Mapping
from types import TracebackType

from libs.simulator.server import RunningSimulator, serve
from libs.simulator.settings import Settings


async def start_simulator(
    keys: Mapping[str, str],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    name_accounts: bool = True,
    azure: bool = False,
) -> RunningSimulator:
    """Start a simulator with these keys."""
    settings = Settings(keys=dict(keys), name_accounts=name_accounts, azure=azure)
    return await serve(settings, host, port)


class Simulator:
    """`async with Simulator(keys) as running:` for tests."""

    def __init__(
        self,
        keys: Mapping[str, str],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        name_accounts: bool = True,
        azure: bool = False,
    ) -> None:
        self._azure = azure
        self._keys = keys
        self._address = (host, port)
        self._name_accounts = name_accounts

    async def __aenter__(self) -> RunningSimulator:
        self._running = await start_simulator(
            self._keys,
            *self._address,
            name_accounts=self._name_accounts,
            azure=self._azure,
        )
        return self._running

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._running.close()
