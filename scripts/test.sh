#!/usr/bin/env bash
# Every test that needs no GPU, in the order in which failures are cheapest.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$PWD/.cache
export PATH="$cache/bin:$PATH"

step() { printf '\n== %s (%s)\n' "$1" "$(date -u +%H:%M:%S)"; }

step "formatting and generated files"
bash scripts/verify.sh

step "three builds and vet"
make --no-print-directory builds
go vet ./...
make --no-print-directory test-cuda
bash scripts/cuda_fallback.sh

step "import arrows and lint"
make --no-print-directory lint

step "training smoke test (CPU)"
if [ -f inference/models/mini/train/smoke.py ]; then
  /usr/bin/python3 inference/models/mini/train/smoke.py
fi

step "CLIP's merges, for the tokenizer's tests"
inference/tokenizer/fetch-clip-merges.sh "$cache/clip-merges.txt.gz"
export DREAM_CLIP_MERGES="$cache/clip-merges.txt.gz"

step "Go tests"
gotestsum --format pkgname --hide-summary=skipped -- -timeout 20m -p 2 ./...

step "Go tests with the race detector, where goroutines meet"
go list ./queue/... ./storage/... ./bots/... ./ops/... ./inference/worker/... >"$cache/race.txt"
if [ -s "$cache/race.txt" ]; then
  xargs gotestsum --format pkgname --hide-summary=skipped -- -race -short -timeout 20m -p 2 <"$cache/race.txt"
fi
