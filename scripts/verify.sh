#!/usr/bin/env bash
# Fails when a file is not formatted or a generated file is not current.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
  printf 'not formatted (run gofmt -w):\n%s\n' "$unformatted" >&2
  exit 1
fi
want=$(mktemp)
trap 'rm -f "$want"' EXIT
go run ./cmd/dream config docs >"$want"
if ! diff -u docs/configuration.md "$want"; then
  echo "docs/configuration.md is not current: run make generate" >&2
  exit 1
fi
