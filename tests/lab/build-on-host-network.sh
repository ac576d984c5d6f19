#!/usr/bin/env bash
# Print a compose override that builds the named services on the host's network, the
# only one on which the lab's builds reach the package registries.
set -euo pipefail
echo "services:"
for service in "$@"; do
  printf '  %s:\n    build:\n      network: host\n' "$service"
done
