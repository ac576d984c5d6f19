#!/usr/bin/env bash
# Create the virtual environment $VENV with the first suitable Python (3.11 to 3.14).
set -euo pipefail

venv=${VENV:-.venv}
fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

# The distribution's Python first: it is built with profile-guided optimization, which
# saves an eighth of a request's CPU time (docs/benchmarks.md). A Python that has the
# venv module is preferred to one that would need a package for it.
able= fitting=
for candidate in ${PYTHON:-/usr/bin/python3} python3 python3.14 python3.13 python3.12 python3.11; do
  # Run it: a pyenv shim is on the PATH even if its Python is not active.
  "$candidate" -c "$fits" 2>/dev/null || continue
  fitting=${fitting:-$candidate}
  if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then able=$candidate; break; fi
done
python=${able:-$fitting}
if [[ -z $python ]]; then
  echo "no Python 3.11 to 3.14 found. Install one, or give its path: make setup PYTHON=/path/to/python3.13" >&2
  exit 1
fi

echo "making $venv with $("$python" --version) ..."
if [[ -n $able ]]; then
  "$python" -m venv "$venv"
elif [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
  # Debian has the module in a separate package.
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
