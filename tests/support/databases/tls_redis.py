"""Redis with TLS and users, and its Sentinel. Uses Debian's, because the server in the
Python package has no TLS."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from libs.common.redis.factory import blocking_client
from tests.support.databases.certificates import Authority
from tests.support.processes.debian import program
from tests.support.processes.ports import free_port

SERVICE = "mymaster"
# The minimal permissions of our services, as in docs/operate.md.
RIGHTS = "~{rpx}:* ~telemetry:events* +@all -@admin -@dangerous +info"
_TLS = """\
port 0
tls-port {port}
bind 127.0.0.1
dir {folder}
tls-cert-file {chain}
tls-key-file {chain}
tls-ca-cert-file {authority}
tls-auth-clients no
tls-replication yes
user default off
"""
_SERVER = """\
save ""
user proxy on >hush {rights}
user watcher on >hush2 ~* &* +@all
"""
_NODE = """\
save ""
user proxy on >hush {rights}
user watcher on >hush2 ~* &* +@all
cluster-enabled yes
cluster-config-file nodes-{port}.conf
cluster-port {bus}
tls-cluster yes
"""
_SENTINEL = """\
user asker on >hush3 +@all &*
sentinel monitor {service} 127.0.0.1 {primary} 1
sentinel auth-user {service} watcher
sentinel auth-pass {service} hush2
"""


@dataclass(frozen=True)
class Guarded:
    """A server and a Sentinel that watches it, with TLS only."""

    authority: Authority
    port: int
    sentinel_port: int

    def url(self, *, user: str = "proxy:hush", authority: Path | None = None) -> str:
        trusted = authority or self.authority.file
        return f"rediss://{user}@127.0.0.1:{self.port}/0?ssl_ca_certs={trusted}"

    @property
    def sentinel_url(self) -> str:
        return (
            f"rediss+sentinel://proxy:hush@127.0.0.1:{self.sentinel_port}/{SERVICE}/0"
            f"?ssl_ca_certs={self.authority.file}"
            "&sentinel_username=asker&sentinel_password=hush3"
        )


@contextmanager
def guarded_redis(folder: Path, authority: Authority) -> Iterator[Guarded]:
    made = Guarded(authority, free_port(), free_port())
    with ExitStack() as stack:
        for port, config in (
            (made.port, _SERVER.format(rights=RIGHTS)),
            (
                made.sentinel_port,
                _SENTINEL.format(service=SERVICE, primary=made.port),
            ),
        ):
            stack.enter_context(_running(folder, authority, port, config))
        _wait_for(made.url())
        _wait_for(made.sentinel_url)
        yield made


@contextmanager
def guarded_cluster(folder: Path, authority: Authority) -> Iterator[str]:
    """The URL of a cluster of one node, with TLS only."""
    port, bus = free_port(), free_port()
    config = _NODE.format(rights=RIGHTS, port=port, bus=bus)
    trusted = f"ssl_ca_certs={authority.file}"
    with _running(folder, authority, port, config):
        server = f"rediss://watcher:hush2@127.0.0.1:{port}/0?{trusted}"
        _wait_for(server)
        with blocking_client(server, 1, 1) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        made = f"rediss+cluster://proxy:hush@127.0.0.1:{port}?{trusted}"
        _wait_for(made)
        yield made


@contextmanager
def _running(
    folder: Path, authority: Authority, port: int, config: str
) -> Iterator[None]:
    file = folder / f"redis-{port}.conf"
    chain = authority.chain("127.0.0.1")
    file.write_text(
        _TLS.format(port=port, folder=folder, chain=chain, authority=authority.file)
        + config
    )
    # The Sentinel is the server's binary under another name. Debian's server package
    # would also start a server.
    binary = program("redis-check-rdb", "redis-tools")
    mode = ["--sentinel"] if "sentinel monitor" in config else []
    process = subprocess.Popen(
        ["redis-server", str(file), *mode],
        executable=binary,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    with blocking_client(url, 1, 1) as client:
        while time.monotonic() < deadline:
            try:
                client.ping()
            except (RedisError, OSError):
                time.sleep(0.02)
            else:
                return
    raise RuntimeError("redis-server did not start")
