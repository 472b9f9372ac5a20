#!/usr/bin/env bash
# run.sh WORK_DIR WS_URL GRPC_ADDR: makes the stubs in WORK_DIR and runs pinger.py on them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../../../.." && pwd)
# shellcheck source=clients/tools.sh
. "$home/clients/tools.sh"

need python3 "install Python 3.11 or later with pip"
packages=(grpcio==1.85.1 protobuf==7.36.2 typing_extensions==4.16.0 websockets==17.4)
modules=$(pip_packages "$(named blackbox-python "${packages[@]}")" "${packages[@]}")

work=$1
SCHEMAS=$here/../schemas "$home/clients/stubs.sh" "$work/stubs" python
PYTHONPATH=$work/stubs/python:$modules PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/pinger.py" "$2" "$3"
