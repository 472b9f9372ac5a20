#!/usr/bin/env bash
# Gets the servers that the bench compares with. No Docker, no root.
#
#   provide.sh NAME     prints the command that starts it, in which $PORT is the port, after building what is not there yet
#   provide.sh --list   prints the names of those that are there in a minute or two
#
# Everything goes under bench-peers in $TRESTLE_TOOLS_DIR, else in trestle-tools in the user's cache folder, one folder per
# peer and version, or per state of its sources. Running it twice at the same time is safe.
set -euo pipefail

sockudo_version=5.2.0
# One of sockudo's parts compiles a .proto when it is built.
grpcio_tools_version=1.85.1

names=(centrifuge gorilla nats socketio)
# Too long to compile to be one of all; for who asks for it.
by_name_only=(sockudo)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${TRESTLE_TOOLS_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set: set TRESTLE_TOOLS_DIR}/.cache}/trestle-tools}
peers=$tools/bench-peers

fail() {
    echo "provide.sh: $*" >&2
    if [[ -s ${log:-} ]]; then
        echo "provide.sh: the end of $log:" >&2
        tail -n 12 "$log" >&2
    fi
    exit 1
}

require() { # COMMAND
    command -v "$1" >/dev/null || fail "$name needs '$1', which is not on PATH"
}

quietly() { "$@" >>"$log" 2>&1 </dev/null; }

sources() { # a checksum of the peer's own files
    (cd "$here/$name" && cat -- *) | cksum | cut -d' ' -f1
}

# A peer is made in a folder beside its place and then moved, so that a half-made one is never found.
begin() {
    rm -rf "$home.part"
    mkdir -p "$home.part"
}

finish() {
    rm -rf "$home"
    mv "$home.part" "$home"
}

go_program() {
    home=$peers/$name-$(sources)
    if [[ ! -x $home/$name ]]; then
        require go
        begin
        quietly go -C "$here/$name" build -mod=readonly -trimpath "-ldflags=-s -w" -o "$home.part/$name" . ||
            fail "go did not build $name"
        finish
    fi
    start "$home/$name"
}

node_program() {
    home=$peers/$name-$(sources)
    if [[ ! -e $home/node_modules ]]; then
        require npm
        begin
        cp "$here/$name"/* "$home.part"
        # Its native addon comes built in the package: nothing is compiled.
        quietly npm ci --silent --no-audit --no-fund --ignore-scripts --prefix "$home.part" || fail "npm did not install $name"
        finish
    fi
    start NODE_ENV=production "$(type -P node)" "$home/server.js"
}

start() { # WORD...
    # shellcheck disable=SC2016 # the harness fills it in
    printf 'env PORT=$PORT'
    printf ' %q' "$@"
    echo
}

nats() {
    local server
    server=$("$here/../../crates/trestle-testkit/provide.sh" nats) || exit 1
    start "$server" -c "$here/nats/nats.conf"
}

sockudo() {
    home=$peers/$name-$sockudo_version
    if [[ ! -x $home/bin/sockudo ]]; then
        require cargo
        require python3
        begin
        quietly python3 -m pip install --quiet --no-deps --disable-pip-version-check --root-user-action=ignore \
            --target "$home.part/protoc" "grpcio-tools==$grpcio_tools_version" || fail "pip did not install grpcio-tools"
        PYTHONPATH=$home.part/protoc PROTOC=$home.part/protoc/bin/python-grpc-tools-protoc \
            quietly cargo install --locked --quiet --root "$home.part" --target-dir "$home.part/target" \
            --no-default-features --features local "sockudo@$sockudo_version" ||
            fail "cargo did not install sockudo $sockudo_version"
        rm -rf "$home.part/target" "$home.part/protoc"
        finish
    fi
    start RUST_LOG=error "$home/bin/sockudo" --config "$here/sockudo/sockudo.toml"
}

case ${1:-} in
"" | -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
--list) printf '%s\n' "${names[@]}" && exit ;;
esac

name=$1
[[ " ${names[*]} ${by_name_only[*]} " == *" $name "* ]] ||
    fail "there is no '$name'; there are: ${names[*]} ${by_name_only[*]}"
mkdir -p "$peers/log" "$peers/lock"
exec {lock}>"$peers/lock/$name"
flock --wait 1200 "$lock" || fail "another provide.sh has been at $name for 20 minutes"
log=$peers/log/$name.log
: >"$log"
case $name in
centrifuge | gorilla) go_program ;;
nats) nats ;;
socketio) node_program ;;
sockudo) sockudo ;;
esac
