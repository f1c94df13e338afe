#!/bin/sh
# Copies the contract into the Rust crate, or into the folder $1: the crate generates its stubs from it in its own
# build, with the generators that its Cargo.lock has, and is published with it.
set -eu
cd "$(dirname "$0")/.."
out=${1:-client_stubs/rust/proto}
rm -rf "$out"
mkdir -p "$out"
find protos -name '*.proto' | while read -r file; do
  mkdir -p "$out/$(dirname "${file#protos/}")"
  cp "$file" "$out/${file#protos/}"
done
