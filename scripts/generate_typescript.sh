#!/bin/sh
# Generates the TypeScript stubs from protos/ into the folder $1 (client_stubs/typescript/src/gen by default).
set -eu
cd "$(dirname "$0")/.."
package=client_stubs/typescript
out=${1:-$package/src/gen}
"$package/scripts/install.sh"
rm -rf "$out"
mkdir -p "$out"
# int64 is a bigint and a timestamp keeps its nanoseconds, so that nothing is lost; bytes are Uint8Array.
options=outputServices=grpc-js,oneof=unions-value,unknownFields=true,forceLong=bigint,useDate=false
options=$options,removeEnumPrefix=true,unrecognizedEnum=false,outputJsonMethods=false,useExactTypes=false
options=$options,exportCommonSymbols=false,esModuleInterop=true,importSuffix=.js
# protoc and google/protobuf come with grpcio-tools, google/rpc with googleapis-common-protos.
.tools/bin/uv run --quiet --isolated --no-project --with-requirements protos/generators.txt \
  --with "googleapis-common-protos==$(sed -n 's/^googleapis-common-protos = "\(.*\)"/\1/p' client_stubs/generators.toml)" python - \
  --plugin=protoc-gen-ts_proto="$package/node_modules/.bin/protoc-gen-ts_proto" \
  --ts_proto_out="$out" --ts_proto_opt="$options" \
  protos/warmline/v1/*.proto google/rpc/status.proto google/rpc/error_details.proto <<'PYTHON'
import sys
from importlib.resources import files

from grpc_tools import protoc

folders = ["protos", str(files("grpc_tools") / "_proto"), str(files("google") / "rpc" / ".." / "..")]
sys.exit(protoc.main(["protoc", *(f"-I{folder}" for folder in folders), *sys.argv[1:]]))
PYTHON
