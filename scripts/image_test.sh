#!/usr/bin/env bash
# Builds the image without a container engine and runs it: read-only, not root, process 1, with a real turn through it.
#
# Needs Debian, root, and Debian's archive and the package index in reach. Takes the tools from Debian where they are
# missing, and makes a base image with debootstrap once (.cache/image-base.tar). No registry of images is asked.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=${SUITE:-bookworm}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
AUTHORITIES=/etc/ssl/certs/ca-certificates.crt
BASE_TAR=.cache/image-base.tar
KEY=key-of-the-image-test
IMAGE=localhost/warmline
BASE=localhost/warmline-base
WARMLINE=.venv/bin/warmline

mkdir -p .cache
scratch=$(mktemp -d "$PWD/.cache/image-test.XXXXXX")
store=(--root "$scratch/store" --runroot "$scratch/run" --storage-driver vfs)
started=()

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }

fail() {
    printf 'image-test: %s\n' "$1" >&2
    for log in "$scratch"/*.log; do
        [ -s "$log" ] && printf -- '--- %s\n%s\n' "${log##*/}" "$(tail -n 20 "$log" | cut -c 1-200)" >&2
    done
    exit 1
}

cleanup() {
    for pid in "${started[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    buildah "${store[@]}" rm --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$scratch"
}
trap cleanup EXIT

# until_true SECONDS WHAT COMMAND...: asks until it is so.
until_true() {
    local until_s=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until_s)) || fail "waited for $what"
        sleep 0.1
    done
}

install_tools() {
    local missing=()
    command -v buildah >/dev/null || missing+=(buildah)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]} from Debian"
    apt-get update -qq >"$scratch/apt.log" 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" \
        >>"$scratch/apt.log" 2>&1 || fail "install ${missing[*]}"
}

make_base() {
    if [ ! -s "$BASE_TAR" ]; then
        say "making the base: Debian $SUITE with Python"
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
            "$SUITE" "$scratch/base" "$MIRROR" >"$scratch/debootstrap.log" 2>&1 || fail "debootstrap"
        rm -rf "$scratch"/base/var/cache/apt/archives/*.deb "$scratch"/base/var/lib/apt/lists/*
        # Written aside first: a half-made base must not be taken for one.
        tar -C "$scratch/base" --numeric-owner -cf "$scratch/base.tar" . && mv "$scratch/base.tar" "$BASE_TAR"
        rm -rf --one-file-system "$scratch/base"
    fi
    local made
    made=$(buildah "${store[@]}" from scratch)
    buildah "${store[@]}" add --quiet "$made" "$BASE_TAR" / >/dev/null
    # The authorities of this machine, so that the build reaches what this machine reaches.
    buildah "${store[@]}" copy --quiet "$made" "$AUTHORITIES" "$AUTHORITIES" >/dev/null
    buildah "${store[@]}" config --env "SSL_CERT_FILE=$AUTHORITIES" --env "PIP_CERT=$AUTHORITIES" "$made"
    buildah "${store[@]}" commit --quiet --rm "$made" "$BASE" >/dev/null
}

build_image() {
    say "building the image"
    buildah "${store[@]}" build --isolation chroot --layers=false --pull-never --format oci \
        --build-arg "BASE=$BASE" --build-arg "REVISION=$(git rev-parse HEAD)" --tag "$IMAGE" . \
        >"$scratch/build.log" 2>&1 || fail "build the image"
}

config() { buildah "${store[@]}" inspect --type image --format "{{range .OCIv1.Config.$1}}{{println .}}{{end}}" "$IMAGE"; }

start_simulator() {
    "$WARMLINE" simulate --port 0 --quiet --words 24 --pace 0.1 --token "$KEY" >"$scratch/simulator.log" 2>&1 &
    started+=($!)
    until_true 20 "the simulator" grep -q '^simulator: ' "$scratch/simulator.log"
    base_url=$(sed -n 's/^simulator: \(http[^ ]*\) .*/\1/p' "$scratch/simulator.log")
}

# Files as a pod has them: the configuration and a secret, readable by the server's user and by nobody else's leave.
write_config() {
    mkdir -p "$scratch/mounted"
    printf '%s\n' "$KEY" >"$scratch/mounted/key"
    cat >"$scratch/mounted/warmline.toml" <<TOML
listen = "127.0.0.1:0"
default_upstream = "simulator"

[upstreams.simulator]
base_url = "$base_url"
credential = { source = "file", file = "/etc/warmline/key" }
TOML
    chown -R 65532:65532 "$scratch/mounted" && chmod 500 "$scratch/mounted" && chmod 400 "$scratch"/mounted/*
}

# What a runtime does, from the image's own configuration: new mounts and processes, the root read-only, its user,
# its variables and nothing else of this environment, its entry point as process 1.
start_server() {
    local user variables entry container root
    mapfile -t variables < <(config Env)
    mapfile -t entry < <(config Entrypoint)
    user=$(buildah "${store[@]}" inspect --type image --format '{{.OCIv1.Config.User}}' "$IMAGE")
    [ "$user" = 65532:65532 ] || fail "the image's user is '$user', expected 65532:65532"
    container=$(buildah "${store[@]}" from --pull-never "$IMAGE")
    root=$(buildah "${store[@]}" mount "$container")
    mkdir -p "$root/etc/warmline"
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --pid --fork --kill-child=KILL -- bash -euc '
        root=$1 mounted=$2 user=$3; shift 3
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount --bind "$mounted" "$root/etc/warmline"
        mount --rbind /dev "$root/dev"
        mount -t proc proc "$root/proc"
        mount -o remount,bind,ro "$root/etc/warmline"
        mount -o remount,bind,ro "$root"
        exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" /usr/bin/env -i "$@"
    ' run "$root" "$scratch/mounted" "$user" "${variables[@]}" "${entry[@]}" --config /etc/warmline/warmline.toml \
        </dev/null >"$scratch/server.log" 2>&1 &
    runner=$!
    started+=("$runner")
    until_true 30 "the server" grep -q '"address"' "$scratch/server.log"
    address=$(sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' "$scratch/server.log")
    server=$(<"/proc/$runner/task/$runner/children")
    server=${server// /}
}

check_confinement() {
    local status=/proc/$server/status
    grep -qE '^Uid:\s+65532\s+65532\s+65532\s+65532$' "$status" || fail "the server does not run as 65532"
    grep -qE '^CapEff:\s+0+$' "$status" || fail "the server has capabilities"
    grep -qE '^NSpid:\s+[0-9]+\s+1$' "$status" || fail "the server is not process 1"
    awk '$5 == "/" { print $6 }' "/proc/$server/mountinfo" | grep -qE '^ro(,|$)' || fail "the root is writable"
    say "serving on $address: user 65532, no capabilities, process 1, read-only root"
}

stream_turn() {
    "$WARMLINE" turn --server "$address" --model sim-small --json "Say what came through the image." >"$scratch/turn.log" \
        2>&1 || fail "a turn through the image"
    grep -q '"completed"' "$scratch/turn.log" || fail "the turn has no completed event"
    local deltas
    deltas=$(grep -c '"text_delta"' "$scratch/turn.log") || fail "no text was streamed"
    say "a turn streamed $deltas pieces of text"
}

# The signal comes while a turn runs: the turn must end well, and the server by itself with 0. The session is named, and
# so left open: the command then asks nothing more of a server that is about to be gone.
stop_while_a_turn_runs() {
    "$WARMLINE" turn --server "$address" --model sim-small --session kept --json "Say what outlives the signal." \
        >"$scratch/last.log" 2>&1 &
    local turn=$! status=0
    started+=("$turn")
    until_true 20 "the running turn's first text" grep -q '"text_delta"' "$scratch/last.log"
    grep -q '"completed"' "$scratch/last.log" && fail "the turn was over before the signal"
    kill -TERM "$server"
    wait "$turn" || fail "the turn that ran at SIGTERM"
    grep -q '"completed"' "$scratch/last.log" || fail "the turn that ran at SIGTERM was not completed"
    wait "$runner" || status=$?
    [ "$status" = 0 ] || fail "the server ended with $status after SIGTERM, expected 0"
    grep -q Traceback "$scratch/server.log" && fail "the server logged a traceback"
    say "SIGTERM during a turn: the turn completed, the server ended with 0"
}

[ "$(id -u)" = 0 ] || fail "needs root: debootstrap and buildah's chroot isolation do"
[ -x "$WARMLINE" ] || fail "no $WARMLINE: make install"
install_tools
make_base
build_image
start_simulator
write_config
start_server
check_confinement
stream_turn
stop_while_a_turn_runs
say "image-test: all well"
