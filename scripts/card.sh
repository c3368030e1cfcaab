#!/usr/bin/env bash
# Everything that only a machine with a card can show, the most valuable first, each part within its limit of seconds.
#
#   scripts/card.sh [PART…]
#
# Writes one line a part (PASS or FAIL, seconds, name, of a failure the reason) to CARD_OUT/summary.txt and what the part
# said to CARD_OUT/PART.log. A part that fails stops no other; the exit code is 1 if one did.
#   CARD_OUT      folder for all that (out/card)
#   CARD          number of the card (0)
#   TEST, DREAM   the test binary and the program, else make builds them here; elsewhere: make bin/cuda.test build-cuda
#   TORCH_PYTHON  a Python with a CUDA build of torch, and safetensors (python3); it writes the full-size random weights
#   PEER_ARGS     for tools/peer.py: --merges FILE without a network
#
# Parts and limits: test-gpu 420, doctor 120, memory-test 90, weights 420, test-gpu-full 480, selftest 120, governor 420,
# overhead 150, bench-jobs 300, bench-gpu 600.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
parts="test-gpu doctor memory-test weights test-gpu-full selftest governor overhead bench-jobs bench-gpu"
declare -A limits=([test-gpu]=420 [doctor]=120 [memory-test]=90 [weights]=420 [test-gpu-full]=480 [selftest]=120 [governor]=420
  [overhead]=150 [bench-jobs]=300 [bench-gpu]=600)
export CARD=${CARD:-0} CARD_OUT=${CARD_OUT:-out/card} REQUIRE_GPU=1
CARD_OUT=$(realpath -m "$CARD_OUT")
peer=$CARD_OUT/peer
model=random-sd21 # as tools/peer.py calls it
export DREAM_MODELS_DIR=$CARD_OUT/models DREAM_LOG_FORMAT=json DREAM_WEB_LISTEN=127.0.0.1:0

fail() { echo "$*"; exit 1; }

need_weights() { [ -s "$peer/peer.json" ] || fail "there are no full-size weights: the part weights has not written them"; }

cuda_test() { (cd inference/device/cuda && "$TEST" -test.count=1 -test.v "$@"); }

# begin starts the program in the background, its log in $log; the part's end ends it.
begin() {
  log=$CARD_OUT/$part.$((++begun)).json
  "$DREAM" "$@" >"$log" 2>&1 &
  pid=$!
}
begun=0

end() {
  [ -z "${pid:-}" ] || { kill -INT "$pid" 2>/dev/null || true; wait "$pid" || true; }
  pid=
}

# await polls for a pattern in the log of the program: await SECONDS PATTERN.
await() {
  for _ in $(seq $(($1 * 2))); do
    grep -q "$2" "$log" && return
    kill -0 "$pid" 2>/dev/null || fail "dream ended: $(tail -n 1 "$log")"
    sleep 0.5
  done
  fail "after $1 s the log does not say: $2"
}

temperature() { "$DREAM" monitor --once | grep -o '[0-9]* °C' | head -n 1 | cut -d' ' -f1; }

part_test-gpu() { cuda_test; }

part_doctor() {
  "$DREAM" doctor --report "$CARD_OUT/doctor.md"
  unknown=$(awk -F'|' '/^\| unknown \| (GPU|Speed of a card)/ { printf "%s ", $4 }' "$CARD_OUT/doctor.md")
  [ -z "$unknown" ] || fail "doctor could not look at a card:$unknown"
}

part_memory-test() { cuda_test -test.run 'TestMemoryTester$'; }

part_weights() {
  "${TORCH_PYTHON:-python3}" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null ||
    fail "${TORCH_PYTHON:-python3} has no torch that sees a card: set TORCH_PYTHON"
  # shellcheck disable=SC2086 # several arguments
  "${TORCH_PYTHON:-python3}" inference/device/cuda/tools/peer.py "$peer" ${PEER_ARGS:-}
}

part_test-gpu-full() { need_weights; bash scripts/bench_gpu.sh check "$peer"; }

part_selftest() { need_weights; "$DREAM" models selftest "$model" --device "cuda:$CARD" --steps 20; }

# The full-size model heats the card; then the limit lies so far below what that reaches that the governor is late at
# first (its gains are in ops/rules/governor.go), and the alert must fire and resolve.
part_governor() {
  need_weights
  export DREAM_OPS_SERVERS_EVERY=2s DREAM_OPS_METRICS_EVERY=1s DREAM_OPS_AGAIN=1s
  seq -f 'a ceramic coffee mug, number %g' 5000 >"$DREAM_DATA/prompts.txt"
  begin up --device "cuda:$CARD" --model "$model"
  await 120 "dreamcad is ready"
  sleep 5
  idle=$(temperature)
  "$DREAM" ingest "$DREAM_DATA/prompts.txt" --kind views
  await 60 '"job done"'
  sleep 60
  # Chips cool within a second between two jobs: the highest of some looks is what the load reaches.
  loaded=$(for _ in $(seq 15); do temperature; sleep 0.5; done | sort -n | tail -n 1)
  end
  echo "idle ${idle:-unknown} °C, under load ${loaded:-unknown} °C"
  if [ -z "$idle" ] || [ -z "$loaded" ]; then fail "the temperature of the card is unknown"; fi
  warms=$((loaded - idle))
  [ "$warms" -ge 14 ] || fail "the load warms the card from $idle to $loaded °C only: no limit lies in between"
  export DREAM_OPS_GPU_WARM=$((loaded - (450 + 36 * warms) / 100 + 2)) DREAM_OPS_GPU_HOT=$((loaded + 20))
  begin up --device "cuda:$CARD" --model "$model"
  await 90 '"alert firing","code":"gpu_warm"'
  await 180 '"alert resolved","code":"gpu_warm"'
  sleep 20
  end
  echo "limit $DREAM_OPS_GPU_WARM °C; temperature each second:" \
    "$(grep '"msg":"metrics"' "$log" | sed -n "s/.*\"gpu$CARD\":{\"temperature\":\([0-9]*\).*/\1/p" | tr '\n' ' ')"
  grep -h '"code":"gpu_warm"\|resting between steps\|full speed again' "$log"
}

# used is the processor time of an idle worker over 30 s, in hundredths of a second.
used() {
  DREAM_WORKER_SUPERVISE=false begin worker --device "cuda:$CARD" --model mini --name card # in the process that is begun
  await 60 '"worker starts"'
  sleep 10
  local before after
  before=$(awk '{print $14 + $15}' "/proc/$pid/stat")
  sleep 30
  after=$(awk '{print $14 + $15}' "/proc/$pid/stat")
  end
  spent=$((after - before))
}

# What the watch costs: a look each second against one each ten minutes.
part_overhead() {
  used
  each=$spent
  export DREAM_OPS_EVERY=10m DREAM_OPS_METRICS_EVERY=10m
  used
  awk -v a="$each" -v b="$spent" 'BEGIN {
    printf "idle worker: %.2f %% of a processor with a look each second, %.2f %% with one each ten minutes: the watch costs %.2f %%\n", a / 30, b / 30, (a - b) / 30
    exit (a - b) / 30 > 0.5 }' || fail "the watch costs more than 0.5 % of a processor"
}

part_bench-jobs() { need_weights; "$DREAM" bench jobs --model "$model" --device "cuda:$CARD" --jobs 16 --at 1,2,4,8; }

part_bench-gpu() { need_weights; bash scripts/bench_gpu.sh bench "$peer"; }

if [ "${1:-}" = --part ]; then # one part, in a process of its own
  part=$2
  DREAM_DATA=$(mktemp -d)
  export DREAM_DATA
  trap 'end; rm -rf "$DREAM_DATA"' EXIT
  trap 'exit 1' TERM INT
  "part_$part"
  exit
fi

for part in "$@"; do
  [ -n "${limits[$part]:-}" ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; echo "there is no part $part" >&2; exit 2; }
done
if [ -z "${TEST:-}" ]; then make --no-print-directory bin/cuda.test; TEST=$root/bin/cuda.test; fi
if [ -z "${DREAM:-}" ]; then make --no-print-directory build-cuda; DREAM=$root/bin/dream-cuda; fi
TEST=$(realpath "$TEST") DREAM=$(realpath "$DREAM")
export TEST DREAM
mkdir -p "$CARD_OUT/models"
ln -sfn "$peer" "$DREAM_MODELS_DIR/$model"
summary=$CARD_OUT/summary.txt
{ date -u +%FT%TZ; "$DREAM" version; nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv,noheader || true; } >"$summary" 2>&1

# reason is the sentence of a log that tells why the part failed.
reason() {
  grep -m 1 -o '[a-z_]*_test\.go:[0-9]*: .*\|^panic: .*' "$1" || grep -v '^\(FAIL\|exit status .*\|\)$' "$1" | tail -n 1
}

failed=0
for part in ${*:-$parts}; do
  start=$SECONDS code=0
  timeout -k 20 "${limits[$part]}" bash "$0" --part "$part" >"$CARD_OUT/$part.log" 2>&1 || code=$?
  case $code in
    0) line="PASS $((SECONDS - start)) s $part" ;;
    124 | 137) line="FAIL $((SECONDS - start)) s $part: not done within ${limits[$part]} s; $(reason "$CARD_OUT/$part.log")" ;;
    *) line="FAIL $((SECONDS - start)) s $part: $(reason "$CARD_OUT/$part.log")" ;;
  esac
  [ "$code" = 0 ] || failed=1
  echo "$line" | tee -a "$summary"
done
exit $failed
