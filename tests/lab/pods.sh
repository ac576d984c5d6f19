#!/usr/bin/env bash
# Run the containers that the Helm chart describes on a real engine: the same image,
# arguments, variables, user, read-only file system, memory limits and grace periods.
# There is no cluster: volumes, policies, probes of the kubelet and scheduling are not
# tried. Ends with a line `N passed, N failed`. The engine is docker-lab's ($LAB).
. "$(dirname "$0")/common.sh"

pods=(-p rpx-lab-pods -f "$scratch/pods.yml" -f "$scratch/stand-ins.yml")
release=demo-responses-proxy

clean_up() { "$lab" run docker compose "${pods[@]}" down -v --timeout 15; }

ask() { # a request must be answered with 200
  "$lab" run curl -fsS --max-time 20 -o "$scratch/answer" -D "$scratch/headers" \
    -H 'content-type: application/json' -d '{"model":"gpt-5.5","input":"Say hello"}' \
    http://127.0.0.1:8000/v1/responses
}

stored() { # it must be in Postgres
  local id
  id=$(tr -d '\r' <"$scratch/headers" | awk 'tolower($1)=="x-proxy-request-id:"{print $2}')
  [[ $("$lab" run docker compose "${pods[@]}" exec -T -e PGPASSWORD=correct-horse \
    $release-postgres psql -h 127.0.0.1 -U proxy -Atc \
    "SELECT count(*) FROM requests WHERE id::text = '$id'") -eq 1 ]]
}

stops() { # SERVICE: SIGTERM must end it with exit code 0, within its grace period
  local id ended format='{{.State.ExitCode}} {{.State.OOMKilled}} {{.RestartCount}}'
  id=$("$lab" run docker compose "${pods[@]}" ps -aq "$1")
  "$lab" run docker compose "${pods[@]}" stop "$1"
  ended=$("$lab" run docker inspect -f "$format" "$id")
  echo "exit code, killed for memory, restarts: $ended"
  [[ $ended == "0 false 0" ]]
}

.venv/bin/python -m tests.support.kubernetes.pods >"$scratch/pods.yml"
# The stand-ins for the official images know other users, and that of Postgres changes its
# user itself: it runs without the limits of its pod, which stays untried.
cat >"$scratch/stand-ins.yml" <<YAML
services:
  $release-redis: {user: redis}
  $release-postgres:
    user: "0:0"
    read_only: false
    cap_drop: !reset []
    security_opt: !reset []
    tmpfs: !reset []
    command: [postgres, -c, "listen_addresses=*"]
YAML

check "the image builds" "$lab" build docker build --network=host --quiet \
  --target service -t responses-proxy:lab .
check "all pods get ready" \
  "$lab" run docker compose "${pods[@]}" up -d --no-build --wait --wait-timeout 120
[[ $failed -eq 0 ]] || "$lab" run docker compose "${pods[@]}" logs --tail 20 || true
check "a request is answered" ask
check "Postgres has it" within 20 stored
for service in gateway health ingest router; do
  check "$service stops in time" stops "$release-$service"
done
check "they go down" "$lab" run docker compose "${pods[@]}" down -v --timeout 15

report
