"""An instance of the stand-in: a folder whose commands really run.

Absolute paths that scripts name are moved into the folder. Programs that need root or
a network are replaced: apt-get, useradd, pip, systemd. `systemctl enable --now` starts
what the unit says; the service is a program that writes down what it was given."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MOVED = (
    *("/opt/responses-proxy", "/etc/responses-proxy", "/etc/systemd"),
    *("/run/responses-proxy", "/var/lib/responses-proxy", "/var/tmp/responses-proxy"),
)
SECONDS = 60

PYTHON3 = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"
  cp "$BIN/venv-python" "$3/bin/python"
  cp "$BIN/service" "$3/bin/responses-proxy"
  exit 0
fi
exec "$REAL_PYTHON" "$@"
"""
VENV_PYTHON = """#!/bin/sh
case "$*" in *"-m pip "*)
  echo "$PWD: $*" >>"$SANDBOX/pip.log"
  [ -e "$BIN/pip-fails" ] && { echo "no such wheel" >&2; exit 1; }
  exit 0;;
esac
exec "$REAL_PYTHON" "$@"
"""
SERVICE = f"""#!{sys.executable}
import json, os, pathlib, sys
files = {{n: pathlib.Path(v).read_text() for n, v in os.environ.items()
         if n.endswith("_FILE")}}
started = dict(argv=sys.argv[1:], environment=dict(os.environ), files=files)
pathlib.Path(os.environ["SANDBOX"], "started.json").write_text(json.dumps(started))
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$SANDBOX/systemctl.log"
unit="$SANDBOX/etc/systemd/system/responses-proxy.service"
case "$1" in
stop) rm -f "$SANDBOX/started.json";;
enable)
  CREDENTIALS_DIRECTORY="$SANDBOX/credentials"
  RUNTIME_DIRECTORY="$SANDBOX/runtime"
  export CREDENTIALS_DIRECTORY RUNTIME_DIRECTORY
  mkdir -p "$CREDENTIALS_DIRECTORY" "$RUNTIME_DIRECTORY"
  sed -n 's/^LoadCredential=//p' "$unit" | while IFS=: read -r name path; do
    cp "$path" "$CREDENTIALS_DIRECTORY/$name"
  done
  eval "$(sed -n 's/^ExecStart=//p' "$unit")";;
esac
"""
# The last lines of a service that printed its environment before it failed.
JOURNALCTL = """#!/bin/sh
echo "Traceback: could not connect"
cat "$SANDBOX/started.json" 2>/dev/null
"""
NOTHING = "#!/bin/sh\nexit 0\n"
PROGRAMS = {
    "python3": PYTHON3,
    "venv-python": VENV_PYTHON,
    "service": SERVICE,
    "systemctl": SYSTEMCTL,
    "journalctl": JOURNALCTL,
    "apt-get": NOTHING,
    "useradd": NOTHING,
}


class Machines:
    """The disks of instances and snapshots, by id."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def disk(self, id_: str) -> Path:
        """The folder of an instance or snapshot."""
        return self.root / id_

    def copy(self, source: str | None, target: str) -> None:
        """Make the disk of `target`, empty without a source."""
        if source is None or not self.disk(source).exists():
            self.disk(target).mkdir()
        else:
            self.take(self.disk(source), target)

    def take(self, source: Path, target: str) -> None:
        """Make the disk of `target` from a folder, which may be another stand-in's."""
        shutil.copytree(source, self.disk(target), symlinks=True)
        old, new = str(source).encode(), str(self.disk(target)).encode()
        for file in self.disk(target).rglob("*"):
            if file.is_file() and old in (content := file.read_bytes()):
                file.write_bytes(content.replace(old, new))

    def run(self, id_: str, command: str) -> tuple[int, str, str]:
        """Run a command on an instance: exit code, output, errors."""
        disk = self.disk(id_)
        for path in ("opt", "etc", "run", "var/lib", "var/tmp"):
            (disk / path).mkdir(parents=True, exist_ok=True)
        for path in MOVED:
            command = command.replace(path, f"{disk}{path}")
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=disk,
            env={
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "BIN": str(self.bin),
                "SANDBOX": str(disk),
                "REAL_PYTHON": sys.executable,
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr
