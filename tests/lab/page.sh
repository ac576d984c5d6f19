#!/usr/bin/env bash
# The commands of the configuration page, word for word, in a clean checkout. Afterwards
# git finds nothing new in it.
source "$(dirname "$0")/common.sh"

export LAB=$lab LAB_PATH=$PATH
uv=$(realpath "${VENV:-.venv}/bin/uv")
checkout=$scratch/checkout
body='{"model":"gpt-5.5","input":"Say hello"}'

clean_up() {
  local pid
  for pid in $(jobs -p); do kill "$pid"; done
  docker ps --quiet --filter ancestor=agent-responses-proxy |
    xargs --no-run-if-empty docker rm -fv
  docker compose down --volumes --timeout 5
}

# `docker` and `uv` as the page calls them. Only here builds need the host's network, and
# what containers publish is reached from the engine's network namespace.
mkdir "$scratch/bin"
cat >"$scratch/bin/docker" <<'SH'
#!/usr/bin/env bash
PATH=$LAB_PATH
if [[ $1 == build ]]; then exec "$LAB" build docker build --network=host "${@:2}"; fi
exec "$LAB" run docker "$@"
SH
cat >"$scratch/bin/in-engine" <<'SH'
#!/usr/bin/env bash
path=$PATH PATH=$LAB_PATH
exec "$LAB" run env PATH="$path" "$@"
SH
ln -s "$uv" "$scratch/bin/uv"
chmod +x "$scratch"/bin/{docker,in-engine}
export PATH=$scratch/bin:$PATH
unset VIRTUAL_ENV

clone() { # the tracked files as they are now, and a repository of their own
  mkdir "$checkout"
  git ls-files -z | xargs -0 cp --parents --target-directory="$checkout" || return 1
  cd "$checkout"
  git init --quiet && git add --all && git -c user.name=lab -c user.email=lab commit -qm "as it is"
}

clean() {
  git status --porcelain
  [[ -z $(git status --porcelain) ]]
}

in_background() { # NAME COMMAND: its output is in $scratch/NAME.log, its process in NAME
  local name=$1
  shift
  (exec "$@" >"$scratch/$name.log" 2>&1) &
  declare -g "$name=$!"
}

answers() { in-engine curl -fsS --max-time 20 -o "$scratch/answer" "$@"; }

ends() { # WHAT PID: by SIGTERM, with exit code 0. Only this shell can wait for it.
  local code=0
  kill "$2" || true
  wait "$2" || code=$?
  check "$1 ends with exit code 0" test "$code" -eq 0
}

check "a clean checkout" clone
cd "$checkout"
cat >.env.service.local <<'ENV'
# As `docker run --env-file` reads it: no quotes, no `export`.
PROXY_REDIS_URL=redis://127.0.0.1:6379/0
PROXY_SQLITE_URL=sqlite:////data/page.sqlite3
PROXY_REQUEST_TIMEOUT_SECONDS=600.0
PROXY_MAX_CAPTURE_BYTES=2000000
PROXY_ADMIN_TOKEN=lab-admin-token
PROXY_SIMULATE=true
OPENAI_API_KEY_1=sk-lab-1
OPENAI_API_KEY_2=sk-lab-2
PROXY_HEALTH_CHECK_INTERVAL_SECONDS=30.0
PROXY_RESOURCE_COOLDOWN_SECONDS=30
ENV

# The image.
check "docker build" docker build -t agent-responses-proxy .
check "the engine runs containers" docker version
in_background container docker run --rm --env-file .env.service.local -p 8000:8000 agent-responses-proxy
check "docker run gets ready" within 30 answers http://127.0.0.1:8000/readyz
check "it answers" answers http://127.0.0.1:8000/v1/responses \
  -H 'content-type: application/json' -d "$body"
check "its admin API takes the token of the file" answers http://127.0.0.1:8000/admin/state \
  -H 'authorization: Bearer lab-admin-token'
[[ $failed -eq 0 ]] || cat "$scratch/container.log"
ends "docker run" "$container"

# The development loop.
check "uv sync" uv sync
check "docker compose up -d redis" docker compose up -d redis
check "its Redis is on loopback" within 20 in-engine python3 -c '
import socket
link = socket.create_connection(("127.0.0.1", 6379), 2)
link.sendall(b"PING\r\n")
assert link.recv(7) == b"+PONG\r\n"'
in_background worker in-engine uv run responses-proxy-worker
check "uv run responses-proxy-worker gets ready" within 60 answers http://127.0.0.1:8003/readyz
in_background gateway in-engine uv run responses-proxy gateway --reload
check "uv run responses-proxy gateway --reload serves" within 60 answers http://127.0.0.1:8000/healthz
ends "the gateway" "$gateway"
ends "the worker" "$worker"
[[ $failed -eq 0 ]] || tail -n 20 "$scratch"/{worker,gateway}.log
check "docker compose down" docker compose down --volumes --timeout 5

# Morph. tests/acceptance has incomplete and contradictory settings.
if [[ -e scripts/deploy_service.py ]]; then
  check "uv run --extra deploy python scripts/deploy_service.py --dry-run" \
    env MORPH_API_KEY=lab MORPH_BASE_IMAGE_ID=lab OPENAI_API_KEY_1=sk-lab-1 \
    PROXY_DATABASE_URL=postgresql://u:p@db.example/proxy \
    uv run --extra deploy python scripts/deploy_service.py --dry-run
fi
check "git finds nothing new" clean

cd - >/dev/null

# With the version of the package.
released() {
  make --no-print-directory image sbom VENV="${VENV:-.venv}" IMAGE=rpx-lab-release &&
    docker image inspect -f '{{index .Config.Labels "org.opencontainers.image.version"}}' \
      rpx-lab-release | grep -qxF "$(docker run --rm rpx-lab-release --version | cut -d' ' -f2)"
}
check "make image sbom" released
report
