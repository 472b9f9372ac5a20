#!/usr/bin/env bash
# run.sh WORK_DIR WS_URL: makes the stubs, compiles client.ts against them in WORK_DIR and runs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../../../.." && pwd)
# shellcheck source=clients/tools.sh
. "$home/clients/tools.sh"

need node "install Node.js 20 or later"
packages=(ws@8.23.0 @types/ws@8.18.2 @types/node@20.19.25 @bufbuild/protobuf@2.17.0 typescript@5.9.3)
modules=$(npm_packages "$(named blackbox-typescript "${packages[@]}")" "${packages[@]}")

work=$1
"$home/clients/stubs.sh" "$work/stubs" typescript
cp "$here"/client.ts "$here"/*.json "$work"
ln -s "$modules/node_modules" "$work/node_modules"
"$modules/node_modules/.bin/tsc" -p "$work"
exec node "$work/out/client.js" "$2"
