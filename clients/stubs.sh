#!/usr/bin/env bash
# stubs.sh OUT_DIR [LANGUAGE...]
#
# Makes stubs of the gateway's contract (proto/trestle/v1) and of the message types in $SCHEMAS (default: proto/examples)
# in OUT_DIR/typescript, OUT_DIR/go, OUT_DIR/python and OUT_DIR/java, or in the languages named only.
# buf and the plugins are fetched once, by their ordinary package names; see tools.sh for where they are kept.
set -euo pipefail

PYTHON_GRPC=(grpcio-tools==1.85.1 grpcio==1.85.1 protobuf==7.36.2 typing_extensions==4.16.0 setuptools==84.2.1)
PROTOC_VERSION=4.32.1             # Maven com.google.protobuf:protoc
PROTOC_GEN_GRPC_JAVA_VERSION=1.75.0

home=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=clients/tools.sh
. "$home/clients/tools.sh"
provide=$home/crates/trestle-testkit/provide.sh # buf and the plugins that CI uses too

[ $# -ge 1 ] || die "usage: stubs.sh OUT_DIR [typescript|go|python|java]..."
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- typescript go python java
wanted=" $* "

path_to() { # TOOL: puts it on PATH
    local program
    program=$("$provide" "$1")
    PATH=$(dirname "$program"):$PATH
}

path_to buf
for language; do
    case $language in
    typescript) path_to protoc-gen-es ;;
    go)
        path_to protoc-gen-go
        path_to protoc-gen-go-grpc
        ;;
    python)
        dir=$(pip_packages "$(named python-grpc "${PYTHON_GRPC[@]}")" "${PYTHON_GRPC[@]}")
        export PYTHONPATH=$dir${PYTHONPATH:+:$PYTHONPATH}
        ;;
    java)
        dir=$(maven_program com.google.protobuf protoc "$PROTOC_VERSION")
        PATH=$dir/bin:$PATH
        dir=$(maven_program io.grpc protoc-gen-grpc-java "$PROTOC_GEN_GRPC_JAVA_VERSION")
        PATH=$dir/bin:$PATH
        ;;
    *) die "no stubs for '$language'; there are typescript, go, python and java" ;;
    esac
    rm -rf "${out:?}/$language"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The plugins of the wanted languages: a block of buf.gen.yaml begins with "  - " and names its folder in `out`.
awk -v wanted="$wanted" '
    function flush() { if (!plugin || keep) printf "%s", block; block = ""; keep = 0 }
    /^plugins:/ { print; inside = 1; next }
    inside && /^  - / { flush(); plugin = 1 }
    inside { block = block $0 "\n"; if ($1 == "out:" && index(wanted, " " $2 " ")) keep = 1; next }
    { print }
    END { flush() }
' "$home/buf.gen.yaml" >"$work/buf.gen.yaml"

# A workspace of its own, so that schemas from anywhere can import the contract.
mkdir "$work/in"
cp -RL "$home/third_party" "$work/in/third_party"
mkdir "$work/in/proto"
cp -RL "$home/proto/trestle" "$work/in/proto/trestle"
cp -RL "${SCHEMAS:-$home/proto/examples}" "$work/in/schemas"
echo '{"version":"v2","modules":[{"path":"proto"},{"path":"schemas"},{"path":"third_party"}]}' >"$work/in/buf.yaml"

cd "$home" # buf.gen.yaml names a plugin by its path from here
buf generate "$work/in" --exclude-path "$work/in/third_party/buf" --template "$work/buf.gen.yaml" --output "$out"

# Go's code is a module of its own, which a service's go.mod replaces or requires.
if [ -d "$out/go" ]; then
    printf 'module example.com/stubs\n\ngo 1.24\n' >"$out/go/go.mod"
fi
