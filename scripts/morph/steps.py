"""The steps that set an instance up, each of which ends in a snapshot.

The digest of a step covers the snapshot it starts from, its script and its files. A
snapshot with that digest is reused, so a deployment repeats only what has changed.
Scripts may run twice, because the SDK sends a command again after a broken connection.
None contains a secret: snapshots are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from scripts.morph import artifact

HOME = "/opt/responses-proxy"
PYTHON = f"{HOME}/venv/bin/python"
ON_INSTANCE = f"{PYTHON} -P {HOME}/on_instance.py"
ARCHIVE = f"{HOME}/upload/files.tar.gz"
DATA_DIR = "/var/lib/responses-proxy"
DEPLOYMENT = "/etc/responses-proxy/deployment.json"
# In memory; they exist while the environment is handed over.
KEY = "/run/responses-proxy.key"
SEALED = "/run/responses-proxy.sealed"
SERVICE = "responses-proxy"

_SYSTEM = f"""
export DEBIAN_FRONTEND=noninteractive
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends python3 python3-venv ca-certificates
fi
python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || {{
  echo "Python 3.11 to 3.14 is needed; this image has $(python3 --version)" >&2
  exit 1
}}
id -u {SERVICE} >/dev/null 2>&1 ||
  useradd --system --user-group --no-create-home --home-dir {DATA_DIR} {SERVICE}
mkdir -p {HOME}
python3 -m venv {HOME}/venv
"""

_PIP = f"{PYTHON} -m pip install --quiet --no-cache-dir --disable-pip-version-check"

# Python 3.12 and 3.13 warn that 3.14 filters what is extracted.
_UNPACK = f"""
rm -rf {HOME}/source
mkdir -p {HOME}/source
{PYTHON} -W ignore -m tarfile -e {ARCHIVE} {HOME}/source
cd {HOME}/source
"""

_CLEAN = f"""
cd /
rm -rf {HOME}/source {HOME}/upload
"""

_DEPENDENCIES = f"""{_UNPACK}
{_PIP} --require-hashes --only-binary :all: -r requirements.lock
{_CLEAN}"""

# LoadCredential: the file stays readable by root alone.
UNIT = f"""[Unit]
Description=Responses Proxy
Wants=network-online.target
After=network-online.target

[Service]
User={SERVICE}
ExecStart={ON_INSTANCE} run {HOME}/venv/bin/responses-proxy up
LoadCredential=deployment:{DEPLOYMENT}
RuntimeDirectory={SERVICE}
RuntimeDirectoryMode=0700
StateDirectory={SERVICE}
StateDirectoryMode=0700
WorkingDirectory={DATA_DIR}
Restart=on-failure
RestartSec=2
# The configuration is invalid: a restart does not help.
RestartPreventExitStatus=2
TimeoutStopSec=20
LimitNOFILE=262144
NoNewPrivileges=true

[Install]
WantedBy=multi-user.target
"""

_APPLICATION = f"""{_UNPACK}
{_PIP} --no-deps --no-build-isolation --no-index --force-reinstall .
cp scripts/morph/on_instance.py {HOME}/on_instance.py
mkdir -p /etc/systemd/system
cat >/etc/systemd/system/{SERVICE}.service <<'UNIT'
{UNIT}UNIT
systemctl daemon-reload
{_CLEAN}"""


@dataclass(frozen=True)
class Step:
    """One step. `digest` is that of the snapshot it ends in."""

    name: str
    digest: str
    script: str
    files: artifact.Files


def steps(base: str, root: Path = artifact.ROOT) -> Sequence[Step]:
    """All steps, in order, for the base that `base` describes."""
    chain = sha256(f"responses-proxy\n{base}".encode()).hexdigest()
    found = []
    for name, script, files in (
        ("system", _SYSTEM, {}),
        ("dependencies", _DEPENDENCIES, artifact.dependencies(root)),
        ("application", _APPLICATION, artifact.application(root)),
    ):
        content = artifact.digest(files)
        chain = sha256(f"{chain}\n{name}\n{script}\n{content}".encode()).hexdigest()
        found.append(Step(name, chain, f"set -eu\n{script}", files))
    return found
