#!/usr/bin/env bash
# Builds the OpenTelemetry Collector of deploy/collector/builder.yaml through the Go module proxy, and keeps it in
# .cache/collector until that file changes. Prints the binary's path. Needs Go.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILDER_VERSION=v0.162.0
manifest=deploy/collector/builder.yaml
cache=.cache/collector
binary=$cache/otelcol-warmline
stamp=$cache/built-from

wanted="$BUILDER_VERSION $(sha256sum "$manifest" | cut -d' ' -f1)"
if [ -x "$binary" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  echo "$binary"
  exit 0
fi
command -v go >/dev/null || { echo "build_collector: go is not installed" >&2; exit 3; }

mkdir -p "$cache"
# One build at a time; whoever waited finds it done.
exec 9>"$cache/lock"
flock 9
if [ -x "$binary" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  echo "$binary"
  exit 0
fi
export GOBIN="$PWD/$cache/bin" CGO_ENABLED=0
nice -n 15 go install "go.opentelemetry.io/collector/cmd/builder@$BUILDER_VERSION" >&2
sed "s#output_path: .*#output_path: $PWD/$cache/source#" "$manifest" >"$cache/builder.yaml"
nice -n 15 "$GOBIN/builder" --config "$cache/builder.yaml" >&2
mv "$cache/source/otelcol-warmline" "$binary"
echo "$wanted" >"$stamp"
echo "$binary"
