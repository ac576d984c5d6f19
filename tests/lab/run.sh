#!/usr/bin/env bash
# Build the images and run them on a real engine: compose with two gateways, then
# everything in one container. A request must get through, and be found in SQL.
# Ends with a line `N passed, N failed`. The engine is docker-lab's ($LAB).
set -euo pipefail
cd "$(dirname "$0")/../.."

lab=${LAB:-../shared/docker-lab/lab}
if [[ ! -x $lab ]]; then
  echo "docker lab: skipped, $lab is not there"
  exit 0
fi

scratch=$(mktemp -d)
passed=0 failed=0
project=(-p rpx-lab -f docker-compose.yml -f deploy/compose.simulate.yml)
single=(-p rpx-lab-one -f deploy/compose.all-in-one.yml)

cleanup() {
  "$lab" run docker compose "${project[@]}" down -v --timeout 15 >/dev/null 2>&1 || true
  "$lab" run docker compose "${single[@]}" down -v --timeout 15 >/dev/null 2>&1 || true
  "$lab" down || true
  rm -rf "$scratch"
}
trap cleanup EXIT

check() { # NAME COMMAND...: the command must succeed
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok    $name"
  else
    failed=$((failed + 1))
    echo "FAIL  $name"
    sed 's/^/      /' <<<"$output" | tail -12
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

ask() { # PORT: a request must be answered with 200
  local body='{"model":"gpt-5.5","input":"Say hello"}'
  "$lab" run curl -fsS --max-time 20 -o "$scratch/answer" -D "$scratch/headers" \
    -H 'content-type: application/json' -d "$body" "http://127.0.0.1:$1/v1/responses"
}

stored() { # the request last asked must be in Postgres, with its decision
  local id sql rows
  id=$(tr -d '\r' <"$scratch/headers" | awk 'tolower($1)=="x-proxy-request-id:"{print $2}')
  sql="SELECT count(*) FROM requests r JOIN decisions d ON d.request_id = r.id
       WHERE r.id::text = '$id' AND d.resource_id LIKE 'openai-%'"
  rows=$("$lab" run docker compose "${project[@]}" exec -T postgres \
    psql -Atc "$sql") && [[ $rows -ge 1 ]]
}

published() { # every gateway's port on this host
  "$lab" run docker ps --filter label=com.docker.compose.project=rpx-lab \
    --filter label=com.docker.compose.service=gateway --format '{{.Ports}}' |
    grep -oE '127\.0\.0\.1:[0-9]+' | cut -d: -f2 | sort -u
}

link_of() { # SERVICE COMPOSE-ARGUMENTS...: the login link that its log has, once
  local service=$1 found
  shift
  found=$("$lab" run docker compose "$@" logs --no-log-prefix "$service" |
    grep -oE 'http://127\.0\.0\.1:8000/#token=[A-Za-z0-9_-]{43}')
  [[ $(wc -l <<<"$found") -eq 1 ]] && echo "$found" >"$scratch/link"
}

admin_status() { # STATUS [TOKEN]: what /admin/state answers at $port
  local seen
  seen=$("$lab" run curl -sS --max-time 20 -o /dev/null -w '%{http_code}' \
    -H "authorization: Bearer ${2:-none}" "http://127.0.0.1:$port/admin/state")
  [[ $seen == "$1" ]]
}

replace_token() { # the command's link takes the place of the logged one
  "$lab" run docker compose "${project[@]}" exec -T router \
    responses-proxy admin-token --new | grep '#token=' >"$scratch/new-link"
}

first_process() { # PID 1 of the all-in-one container, and its user
  local seen
  seen=$("$lab" run docker compose "${single[@]}" exec -T proxy \
    python -c 'import os; print(open("/proc/1/cmdline").read().replace("\0"," "), os.getuid())')
  grep -q supervisord <<<"$seen" && ! grep -qE ' 0$' <<<"$seen"
}

bash tests/lab/build-on-host-network.sh gateway router health ingest simulator \
  >"$scratch/build.yml"
bash tests/lab/build-on-host-network.sh proxy >"$scratch/build-one.yml"

# The first call makes the base images.
check "images build" "$lab" build docker compose "${project[@]}" -f "$scratch/build.yml" build
check "all-in-one builds" \
  "$lab" build docker compose "${single[@]}" -f "$scratch/build-one.yml" build

check "compose gets ready with two gateways" \
  "$lab" run docker compose "${project[@]}" up -d --no-build --wait --wait-timeout 120 \
  --scale gateway=2
[[ $failed -eq 0 ]] || "$lab" run docker compose "${project[@]}" logs --tail 20 || true
ports=$(published)
check "two gateways are published" test "$(wc -w <<<"$ports")" -eq 2
for port in $ports; do
  check "a request through port $port is answered" ask "$port"
  check "Postgres holds its decision" within 20 stored
done
check "the router's log has one login link" link_of router "${project[@]}"
check "the admin API asks for a token" admin_status 401
check "the link's token opens it" within 10 admin_status 200 "$(sed 's/.*token=//' "$scratch/link")"
check "admin-token --new replaces it" replace_token
check "the new token opens it" within 10 admin_status 200 "$(sed 's/.*token=//' "$scratch/new-link")"
check "the old one does not" admin_status 401 "$(sed 's/.*token=//' "$scratch/link")"
check "compose goes down" \
  "$lab" run docker compose "${project[@]}" down -v --timeout 15

check "all-in-one gets ready" \
  "$lab" run docker compose "${single[@]}" up -d --no-build --wait --wait-timeout 60
port=8000
check "a request to it is answered" ask $port
check "supervisord is PID 1, and not root" first_process
check "its log has one login link" link_of proxy "${single[@]}"
check "its admin API asks for a token" admin_status 401
check "the link's token opens it" within 10 admin_status 200 "$(sed 's/.*token=//' "$scratch/link")"
[[ $failed -eq 0 ]] || "$lab" run docker compose "${single[@]}" logs --tail 40 || true
check "all-in-one goes down" \
  "$lab" run docker compose "${single[@]}" down -v --timeout 20

echo "docker lab: $passed passed, $failed failed"
[[ $failed -eq 0 ]]
