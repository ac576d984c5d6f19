"""Postgres with TLS, alone and behind a real pgbouncer in transaction mode."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.databases.certificates import Authority, make_authority
from tests.support.databases.postgres import SETTINGS, run_as, standing_postgres
from tests.support.processes.debian import program
from tests.support.processes.ports import free_port

# Fewer server connections than clients, so that consecutive transactions of different
# clients share a session.
_CONFIG = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 2
auth_type = trust
auth_file = {folder}/users
client_tls_sslmode = require
client_tls_cert_file = {chain}
client_tls_key_file = {chain}
server_tls_sslmode = verify-full
server_tls_ca_file = {authority}
"""


@dataclass(frozen=True)
class Secured:
    """URLs without a database; each server has a certificate of `authority`."""

    authority: Authority
    server: str
    bouncer: str

    def tls(self, url: str, mode: str = "verify-full", ca: Path | None = None) -> str:
        return f"{url}?sslmode={mode}&sslrootcert={ca or self.authority.file}"


@contextmanager
def secured_postgres() -> Iterator[Secured]:
    user = run_as()
    with ExitStack() as stack:
        # Not below pytest's folder, which only its owner may enter.
        folder = Path(tempfile.mkdtemp(prefix="rpx-secured-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        authority = make_authority(folder)
        chain = authority.chain("127.0.0.1")
        chain.chmod(0o600)
        port = free_port()
        tls = ("ssl=on", f"ssl_cert_file={chain}", f"ssl_key_file={chain}")
        if user:
            for path in (folder, chain):
                shutil.chown(path, user)
        server = stack.enter_context(standing_postgres((*SETTINGS, *tls)))
        config = folder / "pgbouncer.ini"
        config.write_text(
            _CONFIG.format(
                server=server.url.rpartition(":")[2],
                port=port,
                folder=folder,
                chain=chain,
                authority=authority.file,
            )
        )
        (folder / "users").write_text('"postgres" ""\n')
        bouncer = subprocess.Popen(
            [program("pgbouncer", "pgbouncer"), "-q", config],
            user=user,  # pgbouncer refuses to run as root
            stderr=subprocess.DEVNULL,
        )
        stack.callback(bouncer.wait, 60)
        stack.callback(bouncer.kill)
        _wait_for(port)
        yield Secured(authority, server.url, f"postgresql://postgres@127.0.0.1:{port}")


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("pgbouncer did not start")
