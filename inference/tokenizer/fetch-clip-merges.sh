#!/bin/sh
# Fetches CLIP's list of merges for the tests, out of the wheel of the Python
# package open_clip_torch (MIT licence), and checks its digest.
# usage: fetch-clip-merges.sh FILE        (does nothing when FILE is there)
set -eu
out=$1
want=924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a
digest() { sha256sum "$1" | cut -d' ' -f1; }
if [ -f "$out" ] && [ "$(digest "$out")" = "$want" ]; then exit 0; fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
	python3 -m venv "$tmp/venv"
	python="$tmp/venv/bin/python"
fi
"$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$tmp" open_clip_torch==2.32.0
python3 -m zipfile -e "$tmp"/open_clip_torch-*.whl "$tmp/wheel"
got=$(digest "$tmp/wheel/open_clip/bpe_simple_vocab_16e6.txt.gz")
if [ "$got" != "$want" ]; then
	echo "the merges in the package have the digest $got, not $want" >&2
	exit 1
fi
mkdir -p "$(dirname "$out")"
cp "$tmp/wheel/open_clip/bpe_simple_vocab_16e6.txt.gz" "$out.part"
mv "$out.part" "$out"
