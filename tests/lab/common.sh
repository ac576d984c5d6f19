# Sourced by the scripts of this folder: counts checks, and cleans up at the end.
# $lab runs commands with a real Docker Engine (docker-lab), $scratch is a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

lab=$(realpath "${LAB:-../shared/docker-lab/lab}" 2>/dev/null || true)
if [[ ! -x $lab ]]; then
  echo "docker lab: skipped, ${LAB:-../shared/docker-lab/lab} is not there"
  exit 0
fi

scratch=$(mktemp -d)
passed=0 failed=0

finish() { # clean_up is the script's own
  clean_up >/dev/null 2>&1 || true
  "$lab" down || true
  rm -rf "$scratch"
}
trap finish EXIT

check() { # NAME COMMAND...: the command must succeed
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok    $name"
  else
    failed=$((failed + 1))
    echo "FAIL  $name"
    sed 's/^/      /' <<<"$output" | tail -20
  fi
}

within() { # SECONDS COMMAND...: the command must succeed before they are over
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    if ((SECONDS >= until)); then return 1; fi
    read -rt 0.3 <> <(:) || true # a pause without a process
  done
}

report() {
  echo "${0##*/}: $passed passed, $failed failed"
  [[ $failed -eq 0 ]]
}
