#!/bin/sh
# Builds the scenarios' runner into a folder, with a file of arguments for `java` that starts it; nothing, when no source
# has changed since.
set -eu
cache=$1
cd "$(dirname "$0")/.."
sources=$(find pom.xml src ../../protos -type f | LC_ALL=C sort | xargs sha256sum)
if [ -f "$cache/runner.args" ] && [ "$sources" = "$(cat "$cache/sources" 2>/dev/null)" ]; then
  exit 0
fi
mkdir -p "$cache"
rm -f "$cache/sources"
mvn --batch-mode --quiet -DbuildDirectory="$cache/target" \
  test-compile dependency:build-classpath -Dmdep.includeScope=runtime -Dmdep.outputFile="$cache/classpath"
# What a run needs, and short starts: a scenario takes less time than the best compiler needs to begin.
{
  echo "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
  echo "-cp \"$cache/target/test-classes:$cache/target/classes:$(cat "$cache/classpath")\""
  echo "io.warmline.runner.ScenarioRunner"
} >"$cache/runner.args"
echo "$sources" >"$cache/sources"
