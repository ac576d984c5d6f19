"""nginx as a plain reverse proxy, for comparison: one worker, no logs, upstream
keep-alive, no buffering because streams need that."""

import shutil
import subprocess
from pathlib import Path

_CONFIG = """\
daemon off;
master_process off; # one process, so one CPU figure
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 64k;
  keepalive_requests 100000000;
  upstream canned {{
    server 127.0.0.1:{upstream};
    keepalive 512;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://canned;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def installed() -> str | None:
    """The path of nginx; installs the distribution's package if it is missing."""
    command = ["bash", "deploy/ensure-debian.sh", "nginx:nginx-light"]
    if _find() is None and subprocess.run(command, check=False).returncode != 0:
        return None
    return _find()


def _find() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def command(nginx: str, folder: Path, port: int, upstream: int) -> list[str]:
    """Write a configuration to `folder`; returns the command that serves `port`."""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, upstream=upstream))
    return [nginx, "-p", str(folder), "-c", str(config), "-e", "stderr"]
