#!/usr/bin/env bash
# Install Debian packages whose commands are missing. Arguments: COMMAND:PACKAGE ...
set -euo pipefail

packages=()
for pair in "$@"; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
[[ ${#packages[@]} -eq 0 ]] && exit 0

if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
  echo "missing Debian packages: ${packages[*]}. Install them and try again." >&2
  exit 1
fi
echo "installing Debian packages: ${packages[*]} ..."
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
