#!/usr/bin/env bash
# Compare the lock files with an advisory database. Fails when a dependency has a
# known vulnerability, and also when the database cannot be asked: "nothing was
# found" must not stand for "nothing was looked up".
set -uo pipefail
VENV=${VENV:-.venv}
SERVICE=${AUDIT_SERVICE:-pypi} # or osv
tool=$VENV/audit
if [ ! -x "$tool/bin/pip-audit" ]; then
  "$VENV/bin/python" -m venv "$tool" &&
    "$tool/bin/python" -m pip -qq --disable-pip-version-check install pip-audit ||
    { echo "audit: pip-audit cannot be installed into $tool"; exit 2; }
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
    echo "audit: NOT DONE: no advisory database answers from here. Run \`make audit\`" \
      "(or AUDIT_SERVICE=osv make audit) on a machine that reaches one."
    status=2
  fi
  rm -f "$log"
done
exit $status
