#!/usr/bin/env bash
# run.sh WORK_DIR WS_URL GRPC_ADDR: makes the stubs, builds the program against them in WORK_DIR and runs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../../../.." && pwd)
# shellcheck source=clients/tools.sh
. "$home/clients/tools.sh"

need go "install Go 1.24 or later"
work=$1
SCHEMAS=$here/../schemas "$home/clients/stubs.sh" "$work/stubs" go
cp "$here"/main.go "$here"/go.mod "$here"/go.sum "$work"
(cd "$work" && go build -mod=readonly -o pinger .)
exec "$work/pinger" "$2" "$3"
