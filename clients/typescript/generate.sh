#!/usr/bin/env bash
# generate.sh: makes the stubs of the contract in src/gen, and those of the example schemas, for the tests, in build/stubs.
set -euo pipefail
cd "$(dirname "$0")"

../stubs.sh build/stubs typescript
rm -rf src/gen
mkdir -p src/gen/trestle/v1
cp build/stubs/typescript/trestle/v1/{client,envelope,errors}_pb.ts src/gen/trestle/v1
