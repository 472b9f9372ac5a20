# Tools and packages by their ordinary names, into a cache outside the repository. Sourced, not run.
#
# The cache is $TRESTLE_TOOLS_DIR, else $XDG_CACHE_HOME/trestle-tools, else ~/.cache/trestle-tools.
# Each function prints the folder it made or found; every folder's name carries its version.

TOOLS=${TRESTLE_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/trestle-tools}

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

need() { # PROGRAM WHAT-TO-DO
    command -v "$1" >/dev/null 2>&1 || die "'$1' is not installed: $2"
}

# Runs COMMAND with a fresh folder as its last argument, then puts that folder in place as DIR. Two at once both work,
# and the first to finish stays.
once() { # DIR COMMAND...
    local dir=$1 part
    shift
    if [ ! -d "$dir" ]; then
        mkdir -p "$TOOLS"
        part=$(mktemp -d "$dir.XXXXXX")
        if ! "$@" "$part" >"$part.log" 2>&1 </dev/null; then
            tail -n 20 "$part.log" >&2
            rm -rf "$part" "$part.log"
            die "could not get $(basename "$dir"): '$1' failed, see above"
        fi
        chmod 755 "$part"
        if [ -d "$dir" ]; then rm -rf "$part"; else mv "$part" "$dir"; fi
        rm -f "$part.log"
    fi
    echo "$dir"
}

# NAME with a sum of what is in it, so that a changed version is another folder.
named() { # NAME PACKAGE...
    local name=$1
    shift
    printf '%s-%s\n' "$name" "$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)"
}

# Packages of PyPI, all of them named: nothing else comes along.
pip_packages() { # NAME PACKAGE==VERSION...
    need python3 "install Python 3.10 or later with pip"
    local dir=$TOOLS/$1
    shift
    once "$dir" python3 -m pip install -q --no-deps --disable-pip-version-check --root-user-action=ignore "$@" --target
}

# Packages of npm; the programs are in node_modules/.bin.
npm_packages() { # NAME PACKAGE@VERSION...
    need npm "install Node.js 20 or later"
    local dir=$TOOLS/$1
    shift
    once "$dir" npm install --silent --no-audit --no-fund --ignore-scripts "$@" --prefix
}

# A program that Maven Central keeps as an artifact; it is in bin under its short name.
maven_program() { # GROUP NAME VERSION
    need mvn "install Maven and a JDK 17 or later"
    once "$TOOLS/$2-$3" maven_copy "$1:$2:$3:exe:$(maven_platform)" "$2"
}
maven_copy() {
    mvn -q -B -ntp org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -Dartifact="$1" -DoutputDirectory="$3/bin" &&
        mv "$3"/bin/*.exe "$3/bin/$2" && chmod 755 "$3/bin/$2"
}
maven_platform() {
    case $(uname -sm) in
    'Linux x86_64') echo linux-x86_64 ;;
    'Linux aarch64') echo linux-aarch_64 ;;
    'Darwin x86_64') echo osx-x86_64 ;;
    'Darwin arm64') echo osx-aarch_64 ;;
    *) die "Maven Central has no protoc for $(uname -sm)" ;;
    esac
}

# The jars that a pom.xml depends on, and theirs.
maven_jars() { # NAME POM
    need mvn "install Maven and a JDK 17 or later"
    once "$TOOLS/$1" maven_dependencies "$2"
}
maven_dependencies() {
    mvn -q -B -ntp -f "$1" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$2"
}
