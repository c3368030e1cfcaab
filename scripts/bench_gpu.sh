#!/usr/bin/env bash
# Runs the full-size networks on the card of this machine beside PyTorch in the same run.
#
#   scripts/bench_gpu.sh check|bench [FOLDER]
#
# check compares every network, 50 steps and the effect of each weight; bench prints times and ratios and draws the plot.
# The first of them writes FOLDER (out/peer): the random checkpoint, PyTorch's results and times.
#   TORCH_PYTHON  a Python with a CUDA build of torch, and safetensors (python3)
#   PEER_ARGS     for tools/peer.py: --merges FILE without a network, --compile for torch.compile's times (bench has it)
#   TEST          the test binary, else `go test` makes it here; elsewhere: make bin/cuda.test
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-}
case $what in check | bench) ;; *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
peer=$(realpath -m "${2:-out/peer}")
here=inference/device/cuda
if [ -z "${TEST:-}" ]; then
  make --no-print-directory bin/cuda.test
  TEST=$PWD/bin/cuda.test
fi
args=${PEER_ARGS:-}
[ "$what" = bench ] && args="--compile $args"
if [ "$what" = bench ] || [ ! -f "$peer/peer.json" ]; then
  # shellcheck disable=SC2086 # several arguments
  ${TORCH_PYTHON:-python3} $here/tools/peer.py "$peer" $args
fi
export REQUIRE_GPU=1 DREAM_PEER=$peer
cd $here
if [ "$what" = check ]; then
  "$TEST" -test.count=1 -test.v -test.run 'TestFullAgainstPyTorch|TestFullNoticesEveryWeight'
  exit
fi
DREAM_PROFILE=1 "$TEST" -test.count=1 -test.v -test.run TestFullSpeed
BENCH_GPU=1 "$TEST" -test.count=1 -test.v -test.run 'TestSpeed$'
python3 tools/plot.py "$peer" "$peer/throughput.svg"
