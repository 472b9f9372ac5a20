#!/usr/bin/env bash
# run.sh WORK_DIR WS_URL GRPC_ADDR: makes the stubs, compiles Push.java against them in WORK_DIR and runs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../../../.." && pwd)
# shellcheck source=clients/tools.sh
. "$home/clients/tools.sh"

need javac "install a JDK 17 or later"
jars=$(maven_jars "$(named blackbox-java "$(cat "$here/pom.xml")")" "$here/pom.xml")

work=$1
SCHEMAS=$here/../schemas "$home/clients/stubs.sh" "$work/stubs" java
find "$work/stubs/java" "$here" -name '*.java' >"$work/sources"
javac -J-XX:TieredStopAtLevel=1 -proc:none -nowarn -d "$work/classes" -cp "$jars/*" "@$work/sources"
exec java -XX:TieredStopAtLevel=1 -cp "$work/classes:$jars/*" Push "$3"
