#!/usr/bin/env bash
# Starts the topology of docker-compose.yml as plain processes (Redis with AOF always,
# the S3 server, bot, worker) and takes one job from the queue to a downloaded GLB.
#
#   scripts/topology.sh [PROMPT]             needs bin/dream (make build)
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-a ceramic coffee mug}
dream=${DREAM:-$PWD/bin/dream}
[ -x "$dream" ] || { echo "topology: $dream is missing: run make build" >&2; exit 1; }
dir=$(mktemp -d)
say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() {
  local p
  while :; do
    p=$((20000 + RANDOM % 30000))
    listening "$p" || { echo "$p"; return; }
  done
}

# Where a client is there, the compose file itself is checked too.
if docker compose version >/dev/null 2>&1; then
  docker compose --env-file docs/docker/env.example -f docker-compose.yml config --quiet && say "docker-compose.yml is valid"
fi

pids=()
stop() {
  status=$?
  trap - EXIT
  if [ $status -ne 0 ]; then
    for log in services bot worker; do
      echo "--- $log.log (end)" >&2
      tail -n 15 "$dir/$log.log" >&2 2>/dev/null || true
    done
  fi
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do # the servers last
    kill "${pids[$i]}" 2>/dev/null || true
    wait "${pids[$i]}" 2>/dev/null || true
  done
  rm -rf "$dir"
  exit $status
}
trap stop EXIT
trap 'exit 130' INT TERM

until_ok() { # what pid command…
  local what=$1 pid=$2
  shift 2
  for _ in $(seq 6000); do
    if "$@" 2>/dev/null; then return; fi
    kill -0 "$pid" 2>/dev/null || { echo "topology: the process ended before: $what" >&2; exit 1; }
    sleep 0.1
  done
  echo "topology: waited ten minutes for: $what" >&2
  exit 1
}

say "starting Redis and the S3 server"
SERVICES_DIR=$dir/services REDIS_PORT=$(free_port) S3_PORT=$(free_port) bash scripts/services.sh >"$dir/services.log" 2>&1 &
pids+=($!)
until_ok "servers" $! grep -q ready "$dir/services.log"
set -a
# shellcheck disable=SC1091
. "$dir/services/env"
DREAM_WEB_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
DREAM_WEB_LISTEN=127.0.0.1:$(free_port)
DREAM_STORAGE_MIN_FREE=64
set +a
url=http://$DREAM_WEB_LISTEN

say "checking the storage"
DREAM_DATA=$dir/bot "$dream" storage check

say "starting the bot (web console on $url)"
DREAM_DATA=$dir/bot "$dream" bot >"$dir/bot.log" 2>&1 &
pids+=($!)
until_ok "console" $! curl -fsS -o /dev/null "$url/healthz"

say "starting the worker"
health=127.0.0.1:$(free_port)
DREAM_DATA=$dir/worker DREAM_METRICS_LISTEN=$health "$dream" worker --device cpu >"$dir/worker.log" 2>&1 &
pids+=($!)
worker=$!
until_ok "worker" $worker curl -fsS -o /dev/null "http://$health/healthz"

say "asking for: $prompt"
ask() { curl -fsS -u "x:$DREAM_WEB_TOKEN" "$@"; }
line=$(printf '%s' "/dream $prompt --kind mesh --formats glb --seed 1" | sed 's/\\/\\\\/g; s/"/\\"/g')
ask -H 'Content-Type: application/json' -d "{\"line\": \"$line\"}" "$url/api/command" >"$dir/reply.json"
job=$(grep -oE '[0-9A-HJKMNP-TV-Z]{26}' "$dir/reply.json" | head -n 1)
[ -n "$job" ] || { echo "topology: no job in the reply: $(cat "$dir/reply.json")" >&2; exit 1; }
say "job $job"
finished() { ask "$url/api/jobs/$job" >"$dir/job.json" && grep -qE '"state": *"(done|failed|cancelled)"' "$dir/job.json"; }
until_ok "the job" $worker finished
grep -qE '"state": *"done"' "$dir/job.json" || { echo "topology: the job ended badly: $(cat "$dir/job.json")" >&2; exit 1; }

link=$(grep -oE '/r/[^"]*/model\.glb[^"]*' "$dir/job.json" | head -n 1 | sed 's/\\u0026/\&/g')
[ -n "$link" ] || { echo "topology: no link to model.glb: $(cat "$dir/job.json")" >&2; exit 1; }
curl -fsSL -o "$dir/model.glb" "$url$link" # the signature is enough: no password
[ "$(head -c 4 "$dir/model.glb")" = glTF ] || { echo "topology: what was downloaded is no GLB" >&2; exit 1; }
say "downloaded model.glb: $(wc -c <"$dir/model.glb") bytes, through Redis, worker, S3 and a signed link"
DREAM_DATA=$dir/bot "$dream" storage du
