# Shared by the scripts of this folder: `source "$(dirname "$0")/lib.bash"` after `set -euo pipefail`.
#
# Where things are, how packages are installed, what is known about each target. It prints nothing
# and changes nothing when it is read.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for those who source this file

# The tree this script belongs to, from wherever it was called.
RUNLET_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What is downloaded or unpacked once per machine. Safe to delete.
RUNLET_CACHE=${RUNLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runlet}
CROSS_CACHE=$RUNLET_CACHE/cross

# Where the scripts of this folder build, apart from a developer's own `target/`.
CI_TARGET=${CARGO_TARGET_DIR:-$RUNLET_ROOT/target}/ci

# Short names, in the order they are built and reported.
ALL_TARGETS="x86_64 aarch64 s390x powerpc64le armv7"
ALL_TARGETS_AND_RISCV="$ALL_TARGETS riscv64"

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# note TEXT: progress that matters only to someone who waits; to stderr, and not in CI logs.
note() {
    if [ -n "${RUNLET_VERBOSE:-}" ] || [ -t 2 ]; then printf '%s: %s\n' "${0##*/}" "$*" >&2; fi
}

# usage: prints the comment at the top of the calling script, without the `#`, up to the first line of code.
usage() {
    awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$0"
}

# target_facts NAME: sets the facts of one target, by its short name, triple or Debian architecture:
#   ARCH short name, TRIPLE of the glibc target, MUSL_TRIPLE, DEB Debian architecture, GNU prefix of
#   Debian's cross tools, QEMU program, ENVKEY the triple as cargo spells it in variables.
target_facts() {
    MUSL_TRIPLE=
    case $1 in
        x86_64 | amd64 | x86_64-unknown-linux-gnu | x86_64-unknown-linux-musl)
            ARCH=x86_64 DEB=amd64 GNU=x86_64-linux-gnu QEMU=
            TRIPLE=x86_64-unknown-linux-gnu MUSL_TRIPLE=x86_64-unknown-linux-musl ;;
        aarch64 | arm64 | aarch64-unknown-linux-gnu | aarch64-unknown-linux-musl)
            ARCH=aarch64 DEB=arm64 GNU=aarch64-linux-gnu QEMU=qemu-aarch64-static
            TRIPLE=aarch64-unknown-linux-gnu MUSL_TRIPLE=aarch64-unknown-linux-musl ;;
        s390x | s390x-unknown-linux-gnu | s390x-unknown-linux-musl)
            ARCH=s390x DEB=s390x GNU=s390x-linux-gnu QEMU=qemu-s390x-static
            TRIPLE=s390x-unknown-linux-gnu MUSL_TRIPLE=s390x-unknown-linux-musl ;;
        powerpc64le | ppc64le | ppc64el | powerpc64le-unknown-linux-gnu | powerpc64le-unknown-linux-musl)
            ARCH=powerpc64le DEB=ppc64el GNU=powerpc64le-linux-gnu QEMU=qemu-ppc64le-static
            TRIPLE=powerpc64le-unknown-linux-gnu MUSL_TRIPLE=powerpc64le-unknown-linux-musl ;;
        armv7 | armhf | armv7-unknown-linux-gnueabihf | armv7-unknown-linux-musleabihf)
            ARCH=armv7 DEB=armhf GNU=arm-linux-gnueabihf QEMU=qemu-arm-static
            TRIPLE=armv7-unknown-linux-gnueabihf MUSL_TRIPLE=armv7-unknown-linux-musleabihf ;;
        riscv64 | riscv64gc | riscv64gc-unknown-linux-gnu | riscv64gc-unknown-linux-musl)
            ARCH=riscv64 DEB=riscv64 GNU=riscv64-linux-gnu QEMU=qemu-riscv64-static
            TRIPLE=riscv64gc-unknown-linux-gnu MUSL_TRIPLE=riscv64gc-unknown-linux-musl ;;
        *) die "unknown target \`$1\` (known targets: $ALL_TARGETS_AND_RISCV)" ;;
    esac
    local upper=${TRIPLE^^}
    ENVKEY=${upper//-/_}
}

# as_root COMMAND...: through sudo where this is not root already.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed for: $*"
    fi
}

# with_apt_lock COMMAND...: runs COMMAND while no other script here runs apt. Two apt commands at once
# go wrong on container images: their hooks empty the download cache under each other's feet.
with_apt_lock() {
    local lock=${TMPDIR:-/tmp}/runlet-apt.lock
    (
        flock 9
        "$@"
    ) 9>>"$lock"
}

# apt_install PACKAGE...: installs what is missing, quietly; does nothing when nothing is.
apt_install() {
    local package missing=()
    command -v apt-get >/dev/null || die "apt-get not found; these packages are needed: $*"
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null)" = 'ii ' ] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    note "installing ${missing[*]}"
    with_apt_lock apt_install_locked "${missing[@]}"
}

apt_install_locked() {
    local log
    log=$(mktemp)
    # The index is refreshed only when the first try fails: a fresh machine, or one whose index is old.
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install \
        --no-install-recommends -y "$@" >"$log" 2>&1; then
        if ! { as_root apt-get -qq -o DPkg::Lock::Timeout=300 update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install \
                --no-install-recommends -y "$@"; } >"$log" 2>&1; then
            cat "$log" >&2
            rm -f "$log"
            die "apt-get could not install: $*"
        fi
    fi
    rm -f "$log"
}

# debian_mirror SUITE: the URI of this machine's own source for SUITE, from deb822 or one-line files.
debian_mirror() {
    local file uri
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] || continue
        uri=$(awk -v suite="$1" '
            BEGIN { RS = ""; FS = "\n" }
            {
                uri = ""; found = 0; off = 0
                for (i = 1; i <= NF; i++) {
                    if ($i ~ /^#/) continue
                    n = split($i, word, /[ \t]+/)
                    if (word[1] == "URIs:") uri = word[2]
                    if (word[1] == "Enabled:" && word[2] == "no") off = 1
                    if (word[1] == "Suites:") for (k = 2; k <= n; k++) if (word[k] == suite) found = 1
                }
                if (found && uri != "" && !off) { print uri; exit }
            }' "$file")
        [ -n "$uri" ] && printf '%s\n' "$uri" && return
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -e "$file" ] || continue
        uri=$(sed -E 's/\[[^]]*\]//' "$file" | awk -v suite="$1" '$1 == "deb" && $3 == suite { print $2; exit }')
        [ -n "$uri" ] && printf '%s\n' "$uri" && return
    done
    die "no apt source of this machine offers \`$1\`: the cross builds are made for Debian 12 (bookworm)"
}

# seconds_since EPOCH_MS: elapsed seconds with one decimal.
now_ms() { date +%s%3N; }
seconds_since() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}
