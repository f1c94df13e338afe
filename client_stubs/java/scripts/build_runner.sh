#!/bin/sh
# Builds the scenarios' runner into a folder, with a file of arguments for `java` that starts it; nothing, when no source
# has changed since.
set -eu
cache=$1
cd "$(dirname "$0")/.."
sources=$(find pom.xml scripts src ../../protos -type f | LC_ALL=C sort | xargs sha256sum)
if [ -f "$cache/runner.args" ] && [ "$sources" = "$(cat "$cache/sources" 2>/dev/null)" ]; then
  exit 0
fi
rm -rf "$cache/sources" "$cache/lib"
mvn --batch-mode --quiet -DbuildDirectory="$cache/target" \
  test-compile dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$cache/lib"
# Short starts: a scenario takes less time than the best compiler needs to begin.
cat >"$cache/runner.args" <<END
-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto
-cp "$cache/target/test-classes:$cache/target/classes:$cache/lib/*"
io.warmline.runner.ScenarioRunner
END
echo "$sources" >"$cache/sources"
