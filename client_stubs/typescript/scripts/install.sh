#!/bin/sh
# Installs the locked dependencies; quick when the lock has not changed.
set -eu
cd "$(dirname "$0")/.."
stamp=node_modules/.installed.json
if ! cmp -s package-lock.json "$stamp"; then
  npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json "$stamp"
fi
