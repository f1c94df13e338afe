#!/bin/sh
# Generates the Python stubs from protos/ into the folder $1 (client_stubs/python by default).
set -eu
cd "$(dirname "$0")/.."
out=${1:-client_stubs/python}
mkdir -p "$out/warmline/v1"
protoc() {
  .tools/bin/uv run --quiet --isolated --no-project --with-requirements protos/generators.txt \
    python -m grpc_tools.protoc -Iprotos "$@"
}
protoc --python_out="$out" --mypy_out="quiet:$out" protos/warmline/v1/*.proto
protoc --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" protos/warmline/v1/*_service.proto
printf '"""Generated from protos/warmline/v1 by `make proto`."""\n' > "$out/warmline/v1/__init__.py"
