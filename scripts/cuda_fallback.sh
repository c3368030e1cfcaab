#!/usr/bin/env bash
# The CUDA build must start on a machine without a driver, say so in one plain
# sentence and compute on the processor; asked for a card, it must fail in one.
set -euo pipefail
cd "$(dirname "$0")/.."
if ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then
  echo "a CUDA driver is installed: nothing to see here"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
DREAM_DATA=$out/data bin/dream-cuda views "a red mug" --steps 2 -o "$out/views" >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
grep -qx 'Using the processor: no CUDA driver\.' "$out/log" || { cat "$out/log"; echo "the fallback was not announced" >&2; exit 1; }
test -s "$out/views/view-0.png"
code=0
DREAM_DATA=$out/data bin/dream-cuda views "a red mug" --device cuda:0 -o "$out/card" >"$out/log" 2>&1 || code=$?
if [ "$code" != 1 ] || [ "$(wc -l <"$out/log")" != 1 ] || ! grep -q 'no CUDA driver' "$out/log"; then
  cat "$out/log"
  echo "asking for a missing card: exit code $code" >&2
  exit 1
fi
# Every part of make card must fail in a sentence here, and none stop the others.
make --no-print-directory bin/cuda.test
code=0
CARD_OUT=$out/card TEST=bin/cuda.test DREAM=bin/dream-cuda TORCH_PYTHON=none bash scripts/card.sh >"$out/log" 2>&1 || code=$?
if [ "$code" != 1 ] || [ "$(grep -c '^FAIL [0-9]* s [a-z-]*: .' "$out/card/summary.txt")" != 10 ]; then
  cat "$out/log"
  echo "make card without a card: exit code $code" >&2
  exit 1
fi
echo "the CUDA build runs without a driver"
