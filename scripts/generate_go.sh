#!/bin/sh
# Generates the Go stubs from protos/ into the folder $1 (client_stubs/go by default). Needs go; buf comes with .venv.
set -eu
cd "$(dirname "$0")/.."
out=${1:-client_stubs/go}
# A folder per set of versions, so that a change of one installs them anew.
bin="$PWD/.cache/bin/go-$(cksum < client_stubs/generators.toml | cut -d ' ' -f 1)"
for generator in protoc-gen-go protoc-gen-go-grpc; do
  [ -x "$bin/$generator" ] || GOBIN="$bin" go install "$(sed -n "s/^$generator = \"\(.*\)\"/\1/p" client_stubs/generators.toml)"
done
.venv/bin/buf generate protos --output "$out" --template "{
  version: v2,
  plugins: [
    {local: $bin/protoc-gen-go, out: ., opt: module=github.com/warmline/warmline/client_stubs/go},
    {local: $bin/protoc-gen-go-grpc, out: ., opt: module=github.com/warmline/warmline/client_stubs/go}
  ]
}"
