#!/usr/bin/env bash
# The image of the Dockerfile's default target, everything in one container: its size, its
# labels, and that it runs as an unprivileged user, with a read-only root file system,
# without capabilities and without a network but its port, quickly.
source "$(dirname "$0")/common.sh"

image=rpx-lab-image
container=rpx-lab-one
network=rpx-lab-internal
LARGEST_MB=105 # over the base image; docs/operate.md has a table of what is in it
READY_S=6 STOP_S=12
# On a busy machine everything takes longer, so getting ready may also take this many
# times as long as a container that prints the help. On an idle one it takes 4 times.
BUSY_FACTOR=8

clean_up() {
  "$lab" run docker rm -fv $container $container-2
  "$lab" run docker network rm $network
}

build() { # TAG DOCKER-BUILD-ARGUMENTS...
  local tag=$1
  shift
  "$lab" build docker build --network=host --quiet --tag "$tag" "$@" .
}

size_mb() { # over the base image
  local size base
  size=$("$lab" run docker image inspect --format '{{.Size}}' $image)
  base=$("$lab" run docker image inspect --format '{{.Size}}' python:3.13-slim)
  echo $(((size - base) / 1000000))
}

small() {
  echo "$size MB"
  ((size <= LARGEST_MB))
}

targets() {
  local target
  for target in service gateway router health ingest; do
    build rpx-lab-$target --target $target || return 1
  done
}

label() { # NAME PATTERN
  "$lab" run docker image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" \
    $image | grep -qE "$2"
}

without() { # PROGRAM...: the image does not have it
  local program
  for program in "$@"; do
    ! "$lab" run docker run --rm --entrypoint sh $image -c "test -e /opt/venv/bin/$program" || return 1
  done
}

helps() { # every command can be imported and print its help
  local command
  for command in up gateway router health ingest simulate migrate doctor; do
    "$lab" run docker run --rm --read-only --network none $image $command --help || return 1
  done
}

bill_of_materials() { # of the image: valid, with Debian's packages, without installers
  "$lab" run docker run --rm -i --network none --read-only --entrypoint python $image - \
    <scripts/inventory.py >"$scratch/inventory"
  "${VENV:-.venv}/bin/python" -m scripts.sbom <"$scratch/inventory" >"$scratch/sbom"
  local part
  for part in python:granian python:responses-proxy debian:libc6 program:valkey; do
    grep -q "\"bom-ref\": \"$part" "$scratch/sbom" || return 1
  done
  ! grep -qE '"python:(pip|setuptools|rich|pytest)"' "$scratch/sbom"
}

compiled_wheel() { # every module of [tool.compiled] is a shared object beside its source
  local modules
  modules=$("${VENV:-.venv}/bin/python" -c '
import pathlib, tomllib
text = pathlib.Path("pyproject.toml").read_text()
print(*tomllib.loads(text)["tool"]["compiled"]["modules"])') || return 1
  "$lab" run docker run --rm --network none --entrypoint python $image -Pc '
import importlib.metadata, pathlib, sys, sysconfig
wheel = importlib.metadata.distribution("responses-proxy").read_text("WHEEL")
assert "Root-Is-Purelib: false" in wheel, wheel
packages = pathlib.Path(sysconfig.get_path("purelib"))
suffix = sysconfig.get_config_var("EXT_SUFFIX")
for name in sys.argv[1:]:
    place = packages / name.replace(".", "/")
    for file in (place.with_suffix(".py"), place.with_suffix(suffix)):
        assert file.exists(), file' $modules
}

no_compiler() { # nor what was made on the way
  "$lab" run docker run --rm --network none --entrypoint sh $image -c '
    ! command -v cc || exit 1
    ! command -v gcc || exit 1
    find /opt -name "*.[cho]" -o -name "mypy*" -o -name opentelemetry |
      grep . && exit 1
    exit 0'
}

hardened=(--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges)

milliseconds='$(( (${EPOCHREALTIME/./} - ${began/./}) / 1000 ))'

reference() { # what a container takes that prints the help
  "$lab" run bash -c '
    began=$EPOCHREALTIME
    docker run --rm '"--network $network ${hardened[*]} $image"' --help >/dev/null
    echo "'"$milliseconds"'"' >"$scratch/reference"
}

# One process in the engine's network namespace, so that what it takes to enter is not
# measured. An internal network has no route and no name server: the container's port is
# all there is. Docker publishes no ports of such networks, so its address is asked.
start() {
  "$lab" run bash -c '
    began=$EPOCHREALTIME
    docker run -d --name '"$container --network $network ${hardened[*]} $image"' >/dev/null
    address=$(docker inspect -f "{{(index .NetworkSettings.Networks \"'$network'\").IPAddress}}" '$container')
    until curl -fsS --max-time 1 -o /dev/null "http://$address:8000/readyz" 2>/dev/null; do
      (( ${EPOCHREALTIME/./} - ${began/./} < 30000000 )) || exit 1
      read -rt 0.05 <> <(:) || true
    done
    echo "$address '"$milliseconds"'"' >"$scratch/started"
}

quickly() { # MILLISECONDS LIMIT
  echo "$1 ms of $2"
  (($1 <= $2))
}

inside() { # PYTHON-CODE
  "$lab" run docker exec $container python -c "$1"
}

unprivileged() {
  inside '
import os
status = dict(line.split(":\t", 1) for line in open("/proc/1/status").read().splitlines())
assert "supervisord" in open("/proc/1/cmdline").read()
assert os.getuid() == os.getgid() == 10001, (os.getuid(), os.getgid())
assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}, status
assert status["NoNewPrivs"] == "1"'
}

read_only() {
  inside '
import pathlib
for folder in ("/", "/opt/venv", "/etc", "/home"):
    try:
        (pathlib.Path(folder) / "x").touch()
    except OSError:
        continue
    raise SystemExit(f"{folder} is writable")'
}

isolated() { # no address but its own network is reached, and no name is resolved
  inside '
import socket
for attempt in (
    lambda: socket.create_connection(("192.0.2.1", 443), 2),
    lambda: socket.getaddrinfo("api.openai.com", 443),
):
    try:
        attempt()
    except OSError:
        continue
    raise SystemExit("the network is reached")'
}

ask() {
  "$lab" run curl -fsS --max-time 20 "http://$address:8000/v1/responses" \
    -H 'content-type: application/json' -d '{"model":"gpt-5.5","input":"Say hello"}'
}

stored() { # the request is in SQLite, with its decision
  inside '
import sqlite3
rows = sqlite3.connect("/data/proxy.sqlite3").execute(
    "SELECT count(*) FROM requests r JOIN decisions d ON d.request_id = r.id"
    " WHERE r.outcome = ?", ("completed",)).fetchone()
assert rows[0] >= 1, rows'
}

compiled() { # as all three that tell the form say
  "$lab" run curl -fsS --max-time 5 "http://$address:8000/readyz" >"$scratch/form" &&
    "$lab" run docker exec $container responses-proxy doctor >>"$scratch/form" &&
    "$lab" run docker logs $container >>"$scratch/form" 2>&1 || return 1
  grep -oE 'hot.path\W+(compiled|interpreted)' "$scratch/form"
  [[ $(grep -cE 'hot.path\W+compiled' "$scratch/form") -eq 3 ]]
}

one_link() { # the log has the login link, once
  "$lab" run docker logs $container >"$scratch/log" 2>&1
  [[ $(grep -cE 'http://[^ ]+/#token=[A-Za-z0-9_-]{43}$' "$scratch/log") -eq 1 ]]
}

healthy() {
  [[ $("$lab" run docker inspect -f '{{.State.Health.Status}}' $container) == healthy ]]
}

stop() {
  "$lab" run bash -c '
    began=$EPOCHREALTIME
    docker stop -t 30 '$container' >/dev/null
    echo "$(docker inspect -f "{{.State.ExitCode}}" '$container') '"$milliseconds"'"' \
    >"$scratch/stopped"
}

refused() { # EXIT-CODE PATTERN DOCKER-RUN-ARGUMENTS...: ends at once; every line fits
  local expected=$1 pattern=$2 got=0
  shift 2
  timeout 60 "$lab" run docker run --rm --name $container-2 "$@" >"$scratch/refused" 2>&1 || got=$?
  cat "$scratch/refused"
  [[ $got -eq $expected && -s $scratch/refused ]] && ! grep -qvE "$pattern" "$scratch/refused"
}

check "the image builds" build $image
check "targets of single services build" targets
size=$(size_mb)
check "it is at most $LARGEST_MB MB over its base" small
check "labels say what it is" label title "^Responses Proxy$"
check "the version is stated only where it is told" label version "^local$"
check "it has no installers" without pip pip3 uv easy_install
check "its hot path is compiled, with sources" compiled_wheel
check "it has no compiler" no_compiler
check "every command can run" helps
check "its bill of materials is valid" bill_of_materials

"$lab" run docker network create --internal $network >/dev/null
check "a command runs" reference
read -r reference_ms <"$scratch/reference" || true
check "it gets ready" start
read -r address ready_ms <"$scratch/started" || true
busy_ms=$((${reference_ms:-0} * BUSY_FACTOR))
check "ready within $READY_S s" quickly "${ready_ms:-99999}" \
  $((busy_ms > READY_S * 1000 ? busy_ms : READY_S * 1000))
check "an unprivileged supervisord without capabilities is PID 1" unprivileged
check "its file system is read-only" read_only
check "it reaches nothing outside" isolated
check "a request is answered" ask
check "it says that it runs compiled" compiled
check "SQLite holds its decision" within 20 stored
check "its log has one login link" one_link
check "Docker finds it healthy" within 20 healthy
check "taken ports are one line each" \
  refused 2 '^responses-proxy: PROXY_([A-Z]+_)?PORT: is 800[0-3], but another process listens' \
  --network "container:$container" $image
[[ $failed -eq 0 ]] || "$lab" run docker logs --tail 40 $container || true
check "it stops" stop
read -r code stop_ms <"$scratch/stopped" || true
check "stopped within $STOP_S s" quickly "${stop_ms:-99999}" $((STOP_S * 1000))
check "with exit code 0" test "${code:-1}" -eq 0

mkdir -p "$scratch/volume" && chmod 755 "$scratch" "$scratch/volume"
line='^responses-proxy: PROXY_DATA_DIR: is /data, .*\((Permission denied|Read-only file system)\)\. '
for command in up gateway; do
  check "$command on a volume of another user is one line" \
    refused 2 "$line" -v "$scratch/volume:/data" $image $command
  check "$command on a read-only volume is one line" \
    refused 2 "$line" -v "$scratch/volume:/data:ro" --read-only $image $command
done

echo "image: $size MB over its base, ready in ${ready_ms:-?} ms (the help takes ${reference_ms:-?} ms), stopped in ${stop_ms:-?} ms"
report
