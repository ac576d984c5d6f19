#!/usr/bin/env bash
# Look the lock files up in an advisory database. Fails if a dependency has a known
# vulnerability (1), and also if the database is unreachable (2), so that "nothing
# found" never means "nothing looked up".
set -uo pipefail
VENV=${VENV:-.venv}
SERVICE=${AUDIT_SERVICE:-pypi} # or osv
tool=$VENV/audit
if [ ! -x "$tool/bin/pip-audit" ]; then
  "$VENV/bin/python" -m venv "$tool" &&
    "$tool/bin/python" -m pip -qq --disable-pip-version-check install pip-audit ||
    { echo "audit: cannot install pip-audit into $tool"; exit 2; }
fi
status=0
for lock in requirements.lock requirements-dev.lock; do
  echo "== $lock ($SERVICE)"
  log=$(mktemp)
  "$tool/bin/pip-audit" --strict --disable-pip --require-hashes -r "$lock" \
    --vulnerability-service "$SERVICE" --progress-spinner off --timeout 15 \
    >"$log" 2>&1 || status=1
  grep -v "^WARNING: Location" "$log" | tail -n 40 | cut -c1-300
  if grep -qE "not found on PyPI|ConnectionError|Max retries|ServiceError" "$log"; then
    echo "audit: NOT DONE: the advisory database is unreachable. Run \`make audit\`" \
      "(or AUDIT_SERVICE=osv make audit) on a machine that can reach it."
    status=2
  fi
  rm -f "$log"
done
exit $status
