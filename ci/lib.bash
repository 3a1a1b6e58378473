# Shared by the scripts of this folder: `source "$(dirname "$0")/lib.bash"` after `set -euo pipefail`.
#
# Places, the installation of packages, and the facts about each target. Reading the file prints nothing
# and changes nothing.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for those who source this file

# The tree this script belongs to, from wherever it was called.
RUNLET_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Folder of what is downloaded or unpacked once per machine. Safe to delete.
RUNLET_CACHE=${RUNLET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runlet}
CROSS_CACHE=$RUNLET_CACHE/cross

# Folders that the scripts of this folder build in, apart from a developer's own `target/`.
CI_TARGET=${CARGO_TARGET_DIR:-$RUNLET_ROOT/target}/ci
CROSS_TARGET=$CI_TARGET/cross

# Short names, in the order they are built and reported.
ALL_TARGETS="x86_64 aarch64 s390x powerpc64le armv7 riscv64"
# Targets for which Debian 12 has a musl.
MUSL_TARGETS="x86_64 aarch64 s390x powerpc64le armv7"

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
#   Debian's cross tools, QEMU program, ENVKEY the triple as cargo spells it in variables; MUSL_GNU the
#   folder of Debian's musl (empty where Debian has none), MUSL_LD its linker emulation where it must be named;
#   FLAGS what rustc is told, for every kind of file (cross/Dockerfile says the same).
target_facts() {
    MUSL_TRIPLE= MUSL_GNU= MUSL_LD= FLAGS='-C target-feature=+crt-static'
    case $1 in
        x86_64 | amd64 | x86_64-unknown-linux-gnu | x86_64-unknown-linux-musl)
            ARCH=x86_64 DEB=amd64 GNU=x86_64-linux-gnu QEMU=
            TRIPLE=x86_64-unknown-linux-gnu MUSL_TRIPLE=x86_64-unknown-linux-musl
            MUSL_GNU=x86_64-linux-musl MUSL_LD= ;;
        aarch64 | arm64 | aarch64-unknown-linux-gnu | aarch64-unknown-linux-musl)
            ARCH=aarch64 DEB=arm64 GNU=aarch64-linux-gnu QEMU=qemu-aarch64-static
            TRIPLE=aarch64-unknown-linux-gnu MUSL_TRIPLE=aarch64-unknown-linux-musl
            MUSL_GNU=aarch64-linux-musl MUSL_LD=aarch64linux ;;
        s390x | s390x-unknown-linux-gnu | s390x-unknown-linux-musl)
            ARCH=s390x DEB=s390x GNU=s390x-linux-gnu QEMU=qemu-s390x-static
            TRIPLE=s390x-unknown-linux-gnu MUSL_TRIPLE=s390x-unknown-linux-musl
            MUSL_GNU=s390x-linux-musl MUSL_LD=elf64_s390 ;;
        powerpc64le | ppc64le | ppc64el | powerpc64le-unknown-linux-gnu | powerpc64le-unknown-linux-musl)
            ARCH=powerpc64le DEB=ppc64el GNU=powerpc64le-linux-gnu QEMU=qemu-ppc64le-static
            TRIPLE=powerpc64le-unknown-linux-gnu MUSL_TRIPLE=powerpc64le-unknown-linux-musl
            MUSL_GNU=powerpc64le-linux-musl MUSL_LD=elf64lppc ;;
        armv7 | armhf | armv7-unknown-linux-gnueabihf | armv7-unknown-linux-musleabihf)
            ARCH=armv7 DEB=armhf GNU=arm-linux-gnueabihf QEMU=qemu-arm-static
            TRIPLE=armv7-unknown-linux-gnueabihf MUSL_TRIPLE=armv7-unknown-linux-musleabihf
            MUSL_GNU=arm-linux-musleabihf MUSL_LD=armelf_linux_eabi ;;
        riscv64 | riscv64gc | riscv64gc-unknown-linux-gnu | riscv64gc-unknown-linux-musl)
            ARCH=riscv64 DEB=riscv64 GNU=riscv64-linux-gnu QEMU=qemu-riscv64-static
            TRIPLE=riscv64gc-unknown-linux-gnu MUSL_TRIPLE=riscv64gc-unknown-linux-musl ;;
        *) die "unknown target \`$1\` (known targets: $ALL_TARGETS)" ;;
    esac
    case $ARCH in
        # The shorter instructions, which every ARMv7 has.
        armv7) FLAGS+=,+thumb-mode ;;
        # Debian's libraries, which are in the file, ask for this one too.
        s390x) FLAGS+=' -C target-cpu=z196' ;;
        # The only one whose files can be loaded anywhere, and so hold a table of what depends on the place;
        # glibc reads the short form of it since 2.36.
        x86_64) FLAGS+=' -C link-arg=-Wl,-z,pack-relative-relocs' ;;
    esac
    local upper=${TRIPLE^^}
    ENVKEY=${upper//-/_}
}

# The two compilers that ci/cross-setup unpacks: the one with foreign standard libraries, the oldest that
# Runlet is built with; and the one with the library's sources.
STABLE_SHORT=1.85
SOURCE_SHORT=1.96

# compiler_for COMMAND: the short version of the compiler with which cargo's COMMAND is done for the current
# target. Release files come from the one with sources: a standard library that is compiled for them carries
# nothing that names the frames of a stack. Tests need an unwinder, and show that the older one will do;
# of riscv64 it has no library.
compiler_for() {
    if [ "$1" = build ] || [ "$ARCH" = riscv64 ]; then echo $SOURCE_SHORT; else echo $STABLE_SHORT; fi
}

# built_in COMMAND: the folder in which cargo's COMMAND works for the current target and LIBC. Files with
# musl have their own, so that both kinds can be built at once.
built_in() {
    local suffix=
    [ "${LIBC:-gnu}" = gnu ] || suffix=-$LIBC
    echo "$CROSS_TARGET/$(compiler_for "$1")$suffix"
}

# built_by_cargo: the path of the release file of the current target and LIBC.
built_by_cargo() {
    local triple=$TRIPLE
    [ "${LIBC:-gnu}" = gnu ] || triple=$MUSL_TRIPLE
    echo "$(built_in build)/$triple/release/runlet"
}

# cargo_for COMMAND ARG...: cargo's `build` (with --release) or `test` with the compiler, linker and flags of
# the current target, and of LIBC: `gnu` (unless set) or `musl`. RUNNER, where set, starts the tests. By
# variables, not by .cargo/config.toml: ordinary builds of this tree must not notice.
#
# No path of this machine reaches the file: it is the same bytes wherever it is built. A panic names its place by
# library and file (`core/src/str/mod.rs`), since the paths of all places that may panic are in the file.
cargo_for() {
    local command=$1 short triple=$TRIPLE gcc=$GNU-gcc key=$ENVKEY flags=$FLAGS options=() last=()
    local sources=$CROSS_CACHE/rust-$SOURCE_SHORT/usr/src cargo_home=${CARGO_HOME:-$HOME/.cargo}
    short=$(compiler_for "$1")
    if [ "${LIBC:-gnu}" = musl ]; then
        triple=$MUSL_TRIPLE gcc=$CROSS_CACHE/bin/musl-$ARCH-gcc
        key=${triple^^} key=${key//-/_}
        flags+=" -C relocation-model=static -C link-self-contained=no -L $CROSS_CACHE/musl/$ARCH/lib"
    fi
    if [ "$1" = build ]; then
        # The files abort on a panic: no unwinder, and no names for the frames of a stripped file.
        options=(-Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size)
        # Values are shown for debugging by their type: the fields of hundreds of types, most of them of
        # libraries, would be kept for messages that nobody reads. Strings and lists are shown as ever.
        flags+=' -Z fmt-debug=shallow'
        # Of two ways to keep values in registers the shorter; no computation is repeated on one way to save it on
        # another. Together 7 KB of the file, 2 of them because only the compiler that makes one program of all libraries
        # is told: it has less to work with where they have been compiled so before.
        command=rustc last=(--bin runlet -- -C llvm-args=-split-spill-mode=size -C llvm-args=-enable-pre=false)
        # Runs of instructions that stand in many functions become one that these call: 37 KB. Where the compiler knows how,
        # it does so by itself but here; for s390x and powerpc64le it does not know.
        [ "$ARCH" != x86_64 ] || last+=(-C llvm-args=-enable-machine-outliner=always)
    elif [ "$short" = $SOURCE_SHORT ]; then
        # No standard library of Debian's for this one: built from its sources.
        options=(-Zbuild-std=std,panic_unwind,panic_abort,test)
    fi
    [ ${#options[@]} = 0 ] || export RUSTC_BOOTSTRAP=1
    local from remap=()
    for from in "$RUNLET_ROOT=/runlet" "$cargo_home=/cargo" "$sources=/rust"; do
        flags+=" --remap-path-prefix=$from"
        remap+=("-ffile-prefix-map=$from")
    done
    # The last that fits counts.
    for from in "$cargo_home"/registry/src/* "$CROSS_CACHE/rust-$SOURCE_SHORT/usr/lib/rustlib/src/rust/library"; do
        flags+=" --remap-path-prefix=$from="
    done
    env RUSTC="$CROSS_CACHE/bin/rustc-$short" RUSTDOC="$CROSS_CACHE/bin/rustdoc-$short" \
        CARGO_TARGET_DIR="$(built_in "$1")" CARGO_INCREMENTAL=0 \
        "CARGO_TARGET_${key}_LINKER=$gcc" "CARGO_TARGET_${key}_RUSTFLAGS=$flags" \
        "CC_${triple//-/_}=$gcc" "AR_${triple//-/_}=$GNU-ar" "CFLAGS_${triple//-/_}=${remap[*]}" \
        ${RUNNER:+"CARGO_TARGET_${key}_RUNNER=$RUNNER"} \
        cargo "$command" "${options[@]}" --quiet --locked --no-default-features --target "$triple" "${@:2}" "${last[@]}"
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

# with_lock NAME COMMAND...: runs COMMAND while no other script here holds the lock NAME.
with_lock() {
    mkdir -p "$RUNLET_CACHE"
    (
        flock 9
        "${@:2}" 9>&-
    ) 9>>"$RUNLET_CACHE/$1.lock"
}

# with_apt_lock COMMAND...: runs COMMAND while no other script here runs apt. Two apt commands at once
# go wrong on container images: their hooks empty the download cache under each other's feet.
with_apt_lock() {
    with_lock apt "$@"
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
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5)
    if ! as_root "${apt[@]}" install --no-install-recommends -y "$@" >"$log" 2>&1; then
        if ! { as_root "${apt[@]}" update && as_root "${apt[@]}" install --no-install-recommends -y "$@"; } \
            >"$log" 2>&1; then
            cat "$log" >&2
            rm -f "$log"
            die "apt-get could not install: $*"
        fi
    fi
    rm -f "$log"
}

# side_by_side: how many tests run at once, unless RUST_TEST_THREADS says so. Most of a test's time is waiting for
# programs, so that one test for each core leaves half of them idle: 332 s instead of 138 s with three on two cores.
side_by_side() {
    local cores most
    cores=$(getconf _NPROCESSORS_ONLN)
    most=$((cores > 12 ? cores : 12))
    export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((cores * 3 < most ? cores * 3 : most))}
}

# install_test_tools: what the tests drive, where it is missing and this is a Debian machine.
install_test_tools() {
    local missing=()
    command -v git >/dev/null || missing+=(git)
    command -v curl >/dev/null || missing+=(curl)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    # Repositories behind it are fetched from.
    [ -x /usr/sbin/sshd ] || missing+=(openssh-server)
    # Counts the files that a task opens.
    command -v strace >/dev/null || missing+=(strace)
    # The web page is looked at in it. Of the cross builds' tests none does.
    command -v chromedriver >/dev/null || missing+=(chromium-driver)
    [ "${#missing[@]}" = 0 ] || apt_install "${missing[@]}"
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
