"""One address for several gateways: a real nginx, configured as in docs/operate.md."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.processes.debian import program
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT
from tests.support.processes.waiting import eventually

DOCUMENTED = re.compile(r"^```nginx\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What nginx needs besides the documented site.
_AROUND = """\
daemon off;
user root; # whose folder it is; ignored when nobody else could be meant
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log info;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{site}
}}
"""


@asynccontextmanager
async def balancing(ports: Sequence[int], folder: Path) -> AsyncIterator[int]:
    """The balancer's port."""
    binary, port, config = program("nginx", "nginx-light"), free_port(), folder / "conf"
    config.write_text(_AROUND.format(folder=folder, site=_site(ports, port)))
    command = [binary, "-p", str(folder), "-c", str(config), "-e", "stderr"]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        await eventually(lambda: _accepts(port))
        yield port
    finally:
        process.terminate()
        await process.wait()


def _site(ports: Sequence[int], port: int) -> str:
    """The documented site with other addresses."""
    (site,) = DOCUMENTED.findall((ROOT / "docs/operate.md").read_text())
    servers = iter(ports)
    site = re.sub(
        r"server gateway-\d:8000 ", lambda _: f"server 127.0.0.1:{next(servers)} ", site
    )
    assert next(servers, None) is None
    listen, count = re.subn(r"listen 80;", f"listen 127.0.0.1:{port};", site)
    assert count == 1
    return listen


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
