#!/usr/bin/env bash
# Starts Redis (AOF always) and the S3 server on loopback ports and stays until it is
# interrupted. What they keep lies in .cache/services.
#
#   scripts/services.sh                      ports 6390 and 7390
#   REDIS_PORT=… S3_PORT=… SERVICES_DIR=… scripts/services.sh
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${SERVICES_DIR:-$PWD/.cache/services}
redis_port=${REDIS_PORT:-6390}
s3_port=${S3_PORT:-7390}
export PATH="$PWD/.cache/bin:$PATH"

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }
die() { echo "services: $*" >&2; exit 1; }
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

command -v redis-server >/dev/null || die "redis-server is missing: run make deps"
command -v versitygw >/dev/null || die "the S3 server is missing: run make tools"
if listening "$redis_port"; then die "port $redis_port is in use: set REDIS_PORT"; fi
if listening "$s3_port"; then die "port $s3_port is in use: set S3_PORT"; fi

mkdir -p "$dir/redis" "$dir/buckets" "$dir/sidecar"
if [ ! -s "$dir/env" ]; then
  say "making keys of the S3 server"
  (umask 077; printf 'DREAM_STORAGE_ACCESS_KEY=dev%s\nDREAM_STORAGE_SECRET_KEY=%s\n' \
    "$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$dir/env.keys")
else
  (umask 077; grep -E '^DREAM_STORAGE_(ACCESS|SECRET)_KEY=' "$dir/env" >"$dir/env.keys")
fi
# shellcheck disable=SC1091
. "$dir/env.keys"
(umask 077; {
  cat "$dir/env.keys"
  echo "DREAM_QUEUE_URL=redis://127.0.0.1:$redis_port/0"
  echo "DREAM_STORAGE_URL='s3://dreams?endpoint=http://127.0.0.1:$s3_port&path_style=true&create=true'"
} >"$dir/env")
rm -f "$dir/env.keys"

pids=()
stop() {
  trap - EXIT INT TERM
  say "stopping"
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
}
trap stop EXIT
trap 'exit 0' INT TERM

await() { # name port pid log
  for _ in $(seq 200); do
    if listening "$2"; then say "$1 listens on 127.0.0.1:$2"; return; fi
    kill -0 "$3" 2>/dev/null || { cat "$4" >&2; die "$1 ended"; }
    sleep 0.05
  done
  die "$1 does not listen on port $2; see $4"
}

say "starting Redis (AOF always) in $dir/redis"
redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$dir/redis" --appendonly yes --appendfsync always \
  --maxmemory-policy noeviction --save "" >"$dir/redis.log" 2>&1 &
pids+=($!)
await Redis "$redis_port" $! "$dir/redis.log"

say "starting the S3 server in $dir/buckets"
ROOT_ACCESS_KEY=$DREAM_STORAGE_ACCESS_KEY ROOT_SECRET_KEY=$DREAM_STORAGE_SECRET_KEY \
  versitygw --port "127.0.0.1:$s3_port" --quiet --keep-alive posix --sidecar "$dir/sidecar" "$dir/buckets" >"$dir/s3.log" 2>&1 &
pids+=($!)
await "the S3 server" "$s3_port" $! "$dir/s3.log"

say "ready; to use them in a shell:  set -a; . $dir/env; set +a"
say "stop with Ctrl-C"
wait -n "${pids[@]}" || true
die "a server ended; see $dir/redis.log and $dir/s3.log"
