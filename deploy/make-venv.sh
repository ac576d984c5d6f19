#!/usr/bin/env bash
# Make the virtual environment $VENV with the first Python 3.11 to 3.13 there is.
set -euo pipefail

venv=${VENV:-.venv}
fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
  # Run it: a pyenv shim is on the PATH whether its Python is active or not.
  if "$candidate" -c "$fits" 2>/dev/null; then python=$candidate; break; fi
done
if [[ -z $python ]]; then
  echo "no Python 3.11, 3.12 or 3.13 found. Install one, or name it: make setup PYTHON=/path/to/python3.13" >&2
  exit 1
fi

echo "making $venv with $("$python" --version) ..."
if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  "$python" -m venv "$venv"
elif [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
  # Debian ships the module in a package of its own.
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
  "$python" -m venv "$venv"
elif command -v virtualenv >/dev/null; then
  virtualenv --quiet --python "$python" "$venv"
else
  echo "$python has no venv module. Install python3-venv (Debian) or virtualenv, then try again." >&2
  exit 1
fi
