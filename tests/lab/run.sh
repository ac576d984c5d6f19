#!/usr/bin/env bash
# Run all scripts of this folder that test images on a real engine, docker-lab's ($LAB).
# Ends with a line `N passed, N failed`. Each script can be run alone.
set -euo pipefail
cd "$(dirname "$0")"

scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
for script in image.sh compose.sh page.sh pods.sh; do
  bash "$script" 2>&1 | tee -a "$scratch" || true
done
grep -q 'docker lab: skipped' "$scratch" && exit 0
awk '/^[a-z]+\.sh: [0-9]+ passed, [0-9]+ failed$/ {ran++; passed += $2; failed += $4}
     END {failed += 4 - ran # a script that broke off
          print "docker lab: " passed " passed, " failed " failed"; exit failed > 0}' "$scratch"
