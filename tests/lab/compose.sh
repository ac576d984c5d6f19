#!/usr/bin/env bash
# docker-compose.yml on a real engine: one address for gateways that come, go and die
# under load. Clients and load are Python programs of this folder; they need .venv.
source "$(dirname "$0")/common.sh"

# Only these variables, not those of a developer's .env.
export ENV_FILE=/dev/null COMPOSE_PROFILES=demo IMAGE=responses-proxy-lab
export PORT=18000 REDIS_PORT=16379 SECRETS_DIR=$scratch/secrets
unset PUBLISH POSTGRES_PASSWORD REDIS_PASSWORD COMPOSE_FILE
url=http://127.0.0.1:$PORT
files=(-f docker-compose.yml -f "$scratch/same-upstream.yml")
# Redeploys replace this stack's services, and the upstream is none of them.
echo 'services: {simulator: {image: responses-proxy-lab}}' >"$scratch/same-upstream.yml"

compose() { "$lab" run docker compose --env-file /dev/null -p rpx-lab "${files[@]}" "$@"; }

second() { # docker-compose.yml as it is, on other ports
  PORT=18100 REDIS_PORT=0 "$lab" run docker compose --env-file /dev/null -p rpx-lab-2 "$@"
}

clean_up() {
  [[ ! -e $scratch/load ]] || kill "$(cat "$scratch/load")"
  compose down -v --timeout 15
  second down -v --timeout 15
  "$lab" run docker image rm -f responses-proxy-lab:next
}

up() { compose up -d --no-build --wait --wait-timeout 180 "$@"; }

scale() { up --no-recreate --scale "gateway=$1"; }

sql() { compose exec -T -e PGPASSWORD=proxy postgres psql -Atc "$1"; }

ask() { # a request must be answered with 200
  "$lab" run curl -fsS --max-time 60 -o "$scratch/answer" -D "$scratch/headers" \
    -H 'content-type: application/json' \
    -d '{"model":"gpt-5.5","input":"Say hello"}' "$url/v1/responses"
}

stored() { # the request last asked must be in Postgres, with its decision
  local id
  id=$(tr -d '\r' <"$scratch/headers" | awk 'tolower($1)=="x-proxy-request-id:"{print $2}')
  [[ $(sql "SELECT count(*) FROM requests r JOIN decisions d ON d.request_id = r.id
    WHERE r.id::text = '$id' AND d.resource_id LIKE 'openai-%'") -ge 1 ]]
}

link() { # the login link, which is logged once and has the published port
  local found
  found=$(compose logs --no-log-prefix router |
    grep -oE "http://127\.0\.0\.1:$PORT/#token=[A-Za-z0-9_-]{43}")
  [[ $(wc -l <<<"$found") -eq 1 ]] && echo "${found#*token=}" >"$scratch/token"
}

admin_status() { # STATUS FILE: what /admin/state answers to the token in the file
  [[ $("$lab" run curl -sS --max-time 20 -o /dev/null -w '%{http_code}' \
    -H "authorization: Bearer $(cat "$2")" "$url/admin/state") == "$1" ]]
}

replace_token() { # the command's link takes the place of the logged one
  local found
  found=$(compose exec -T router responses-proxy admin-token --new |
    grep -oE "http://127\.0\.0\.1:$PORT/#token=[A-Za-z0-9_-]{43}")
  echo "${found#*token=}" >"$scratch/new-token"
}

of_clients() { # openai-python and Codex; Codex's session must be in SQL
  local session
  session=$("$lab" run .venv/bin/python -m tests.lab.clients "$url") || return 1
  within 20 codex_stored "$session"
}

codex_stored() {
  [[ $(sql "SELECT count(*) FROM requests WHERE session_id = '$1' AND transport = 'ws'
    AND outcome = 'completed'") -ge 2 ]]
}

begin_load() {
  rm -f "$scratch/report"
  sql 'SELECT now()' >"$scratch/since"
  "$lab" run .venv/bin/python -m tests.lab.load "$url" "$scratch/report" \
    >"$scratch/load.log" 2>&1 &
  echo $! >"$scratch/load"
  within 30 progress 30
}

progress() { # COUNT: so many requests were completed since `since`
  [[ $(sql "SELECT count(*) FROM requests WHERE outcome = 'completed'
    AND created_at > '$(cat "$scratch/since")'") -ge $1 ]]
}

end_load() { # requests of all kinds were sent
  local kind
  kill -TERM "$(cat "$scratch/load")"
  within 130 test -e "$scratch/report" || {
    cat "$scratch/load.log"
    return 1
  }
  rm "$scratch/load"
  for kind in json stream socket; do
    awk -v kind=$kind '$1 == kind && $2 > 5 {found = 1} END {exit !found}' \
      "$scratch/report" || return 1
  done
}

none_failed() { ! grep '^failed' "$scratch/report"; }

told() { # what the load reported
  sed 's/^/      /' "$scratch/report" 2>/dev/null | grep -v failed | paste -sd' ' | tr -s ' ' |
    sed 's/^/      /' || true
}

rolling() { # as documented: what gateways depend on, new gateways, then the old ones go
  up ingest router health && up --no-recreate --scale gateway=4 gateway &&
    up --scale gateway=2 gateway
}

gateways() { # COUNT IMAGE: so many run, all of that image
  local images
  images=$("$lab" run docker ps --filter label=com.docker.compose.project=rpx-lab \
    --filter label=com.docker.compose.service=gateway --format '{{.Image}}')
  [[ $(wc -l <<<"$images") -eq $1 && $(sort -u <<<"$images") == "$2" ]]
}

next_image() {
  printf 'FROM responses-proxy-lab\nLABEL rpx.lab=next\n' |
    "$lab" run docker build -q -t responses-proxy-lab:next -
}

kill_one() {
  compose ps --format '{{.ID}}' gateway | head -1 >"$scratch/victim"
  "$lab" run docker kill "$(cat "$scratch/victim")" && sql 'SELECT now()' >"$scratch/since"
}

# The balancer sent failed requests to one gateway, the killed one. A request is settled
# just before its last bytes are sent: its row may say that it was completed.
only_the_victims_failed() {
  local sessions lost others
  sessions=$(awk '$1 == "failed" {printf "%s\047%s\047", sep, $3; sep = ","}' "$scratch/report")
  [[ -n $sessions ]] || return 0
  grep '^failed' "$scratch/report"
  lost=$(compose logs --no-log-prefix --since 120s balancer | grep -E ' S[CHD]-- ' |
    grep -oE 'gateways/gateway[0-9]+' | sort -u)
  echo "lost by: $lost"
  others=$(sql "SELECT session_id, gateway_id, outcome FROM requests
    WHERE session_id IN ($sessions) AND (gateway_id NOT LIKE '$(cut -c1-12 "$scratch/victim")-%'
    OR outcome NOT IN ('interrupted', 'completed'))")
  echo "not explained by the kill: ${others:-none}"
  [[ $(wc -l <<<"$lost") -le 1 && -z $others ]]
}

upstream() { # METHOD [FAULT]: script the simulated upstream
  compose exec -T simulator python -c "import sys, urllib.request as r
r.urlopen(r.Request('http://127.0.0.1:9000/__sim/faults', method='$1', data=b'${2:-}'))"
}

left() { # a request whose client leaves is cancelled, though its answer has not begun
  "$lab" run curl -sS --max-time 1 -o /dev/null -H 'x-session-id: lab-left' \
    -H 'content-type: application/json' \
    -d '{"model":"gpt-5.5","input":"Say hello"}' "$url/v1/responses"
  within 10 cancelled
}

cancelled() {
  [[ $(sql "SELECT outcome FROM requests WHERE session_id = 'lab-left'") == cancelled ]]
}

drained_stop() { # a stream that runs while everything stops reaches its end
  local began=$SECONDS stream
  "$lab" run curl -sSN --max-time 60 -o "$scratch/stream" -w '%{time_total} %{http_code}' \
    -H 'content-type: application/json' \
    -d '{"model":"gpt-5.5","input":"Say hello","stream":true}' "$url/v1/responses" \
    >"$scratch/stream.time" &
  stream=$!
  within 10 grep -qs 'event: response.created' "$scratch/stream"
  compose stop
  wait "$stream" || return 1
  echo "stream: $(cat "$scratch/stream.time"), stop: $((SECONDS - began)) s"
  grep -q 'event: response.completed' "$scratch/stream" && ((SECONDS - began < 40))
}

refused_in_one_line() { # a published stack needs a password
  local said
  ! said=$(PUBLISH=0.0.0.0 SECRETS_DIR='' "$lab" run docker compose --env-file /dev/null \
    -p rpx-lab config -q 2>&1) && [[ $(wc -l <<<"$said") -eq 1 && $said == *"set POSTGRES_PASSWORD"* ]]
}

profile_flag_refused() { # --profile demo alone: the gateways would not use the simulation
  local said
  ! said=$(COMPOSE_PROFILES='' "$lab" run docker compose --env-file /dev/null -p rpx-lab-2 \
    --profile demo run --rm --no-deps simulator 2>&1) && [[ $said == *"COMPOSE_PROFILES=demo"* ]]
}

check "the image builds" "$lab" build \
  docker build --network=host --quiet --target service --tag responses-proxy-lab .
check "a stack published beyond loopback needs a password" refused_in_one_line
check "compose gets ready with three gateways" up --scale gateway=3
[[ $failed -eq 0 ]] || compose logs --tail 20 | cut -c1-300 || true
check "a request through the address is answered" ask
check "Postgres holds its decision" within 20 stored
check "the router's log has one login link, with the published port" link
check "the admin API asks for a token" admin_status 401 /dev/null
check "the link's token opens it" within 10 admin_status 200 "$scratch/token"
check "admin-token --new replaces it" replace_token
check "the new token opens it" within 10 admin_status 200 "$scratch/new-token"
check "the old one does not" admin_status 401 "$scratch/token"
check "openai-python and Codex work through the address" of_clients

check "a second stack starts beside it" second up -d --no-build --no-deps --wait redis
check "the demo is refused as a mere --profile" profile_flag_refused
check "the second stack goes" second down -v --timeout 15

check "a load begins" begin_load
check "it scales to one gateway" scale 1
check "it scales to five" scale 5
check "the balancer reloads its configuration" compose kill -s USR2 balancer
check "the load ends" end_load
told
check "no request failed" none_failed

check "a load begins" begin_load
check "a gateway is killed" kill_one
check "traffic continues" within 30 progress 100
check "the load ends" end_load
told
check "only its own requests failed" only_the_victims_failed

check "it scales to two" scale 2
check "there is a new image" next_image
export IMAGE=responses-proxy-lab:next
check "a load begins" begin_load
check "gateways are replaced one after the other" rolling
check "two run, of the new image" gateways 2 responses-proxy-lab:next
export IMAGE=responses-proxy-lab
for service in ingest router health; do # the order of docs/upgrade.md
  check "$service is replaced" up --no-deps "$service"
done
check "all gateways are replaced at once by up -d" up --no-deps --scale gateway=2 gateway
check "two run, of the first image" gateways 2 responses-proxy-lab
check "the load ends" end_load
told
check "no request failed" none_failed

check "the upstream becomes silent" upstream POST '{"fault": {"delay_ms": 30000}}'
check "a client that leaves ends its request" left
check "the upstream answers again" upstream DELETE
check "the upstream becomes slow" upstream POST '{"fault": {"event_gap_ms": 700}}'
rows=$(sql 'SELECT count(*) FROM requests' || true)
check "stop lets a stream of 8 s end" drained_stop
check "the stack goes down" compose down --timeout 15

mkdir -p "$SECRETS_DIR"
printf 'proxy\n' >"$SECRETS_DIR/postgres_password"
printf 'postgresql://proxy:proxy@postgres:5432/proxy\n' >"$SECRETS_DIR/database_url"
printf 'sk-sim-1\nsk-sim-2\nsk-sim-3\nsk-sim-4\n' >"$SECRETS_DIR/openai_api_keys"
printf 'a-token-from-a-file\n' >"$SECRETS_DIR/admin_token"
chmod -R a+rX "$scratch"
files+=(-f deploy/compose.secrets.yml)
check "it starts again, with secrets in files" up
check "SQL is still there" test "$(sql 'SELECT count(*) FROM requests')" -ge "${rows:-1}"
check "a request is answered at the same address" ask
check "Postgres holds its decision" within 20 stored
check "the admin token is the file's" within 10 admin_status 200 "$SECRETS_DIR/admin_token"
[[ $failed -eq 0 ]] || compose logs --tail 20 | cut -c1-300 || true

report
