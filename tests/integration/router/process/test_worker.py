"""The worker process of a router."""

import os
import signal
from pathlib import Path

from tests.integration.router.process.running import environ
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, granian, wait_for
from tests.support.processes.up import descendants, until


def test_a_worker_ends_when_its_main_process_is_killed(
    valkey_server: str, tmp_path: Path
) -> None:
    """It would serve the port beside its successor."""
    port, database = free_port(), f"sqlite:///{tmp_path}/proxy.sqlite3"
    process = Process(
        granian("services.router.app:create_app", port),
        environ(valkey_server, port, database, PROXY_DATA_DIR=str(tmp_path)),
        tmp_path / "router.log",
    )
    try:
        wait_for(process, f"http://127.0.0.1:{port}/healthz")
        workers = descendants(process.pid)
        assert workers != []
        os.kill(process.pid, signal.SIGKILL)

        def ended() -> bool:
            return not any(Path(f"/proc/{pid}/exe").exists() for pid in workers)

        until(ended, 30, lambda: f"of {workers}, some still run")
    finally:
        process.kill()
