# shellcheck shell=sh
# Shared by what the packages do on a host; ci/package puts it before each of the other files here. Nothing waits for
# a job, asks a question, uses the network, or fails where there is no systemd.

# has_systemd: whether systemd runs this host.
has_systemd() {
    [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1
}

# running PATTERN: the units that run, one a line. One that is draining does not count.
running() {
    systemctl list-units --plain --no-legend --state=active "$1" 2>/dev/null | while read -r unit _; do
        printf '%s\n' "$unit"
    done
}

# make_user NAME HOME SHELL: a system user with a group of the same name, unless there is one.
make_user() {
    if getent passwd "$1" >/dev/null 2>&1; then return 0; fi
    if ! command -v useradd >/dev/null 2>&1; then
        echo "runlet: there is no useradd here: make the user $1 with the home $2 by hand"
        return 0
    fi
    getent group "$1" >/dev/null 2>&1 || groupadd --system "$1"
    useradd --system --gid "$1" --home-dir "$2" --shell "$3" --no-create-home --comment "Runlet" "$1"
}

# make_folder FOLDER MODE USER: unless it is there.
make_folder() {
    [ ! -e "$1" ] || return 0
    mkdir -p "$1"
    chmod "$2" "$1"
    if getent passwd "$3" >/dev/null 2>&1; then chown "$3:$3" "$1"; fi
}

# may_restart UNIT: whether the policy of this host lets packages do that (image builds say no).
may_restart() {
    [ ! -x /usr/sbin/policy-rc.d ] || /usr/sbin/policy-rc.d "${1%.service}" restart >/dev/null 2>&1
}

# renew: what runs is to be of the version that was just installed; nothing else is started. Runners leave their job to
# the next one, which systemd starts: a job goes on, and nobody waits for it.
renew() {
    has_systemd || return 0
    systemctl daemon-reload || true
    for unit in $(running 'runlet-machine@*.service'); do
        may_restart "$unit" || continue
        systemctl kill --kill-who=main --signal=SIGUSR2 "$unit" || true
    done
    for unit in $(running runlet-server.service); do
        may_restart "$unit" || continue
        systemctl try-restart --no-block "$unit" || true
    done
}

# retire PATTERN: units that run are told to stop, and none starts again. Nobody waits: a runner drains.
retire() {
    has_systemd || return 0
    for link in /etc/systemd/system/*.wants/$1; do
        [ -L "$link" ] || continue
        systemctl disable "${link##*/}" >/dev/null 2>&1 || true
    done
    for unit in $(running "$1"); do
        systemctl stop --no-block "$unit" || true
        case $unit in
            runlet-machine@*)
                echo "runlet: $unit takes no further job and ends with the one that it has; \`systemctl kill $unit\` ends that"
                ;;
        esac
    done
}

# reload_units: systemd hears of unit files that came or went.
reload_units() {
    if has_systemd; then systemctl daemon-reload || true; fi
}

# advise_machine: the next command, for a person who has just installed a runner.
advise_machine() {
    echo "runlet: next, settings in /etc/runlet/NAME.yaml (an example: /usr/share/doc/runlet/examples/machine.yaml), then"
    echo "runlet:   systemctl enable --now runlet-machine@NAME"
    if [ -e /etc/circleci-runner/circleci-runner-config.yaml ]; then
        echo "runlet: the settings of CircleCI's runner can be used as they are, but for api.url and the token:"
        echo "runlet:   install -g runlet -m 640 /etc/circleci-runner/circleci-runner-config.yaml /etc/runlet/NAME.yaml"
    fi
}

# advise_server: the same for a control plane.
advise_server() {
    echo "runlet: next, options in /etc/runlet/server.env (an example: /usr/share/doc/runlet-server/examples/server.env), then"
    echo "runlet:   systemctl enable --now runlet-server"
}

# prepare_machine, prepare_server: users and folders.
prepare_machine() {
    make_user runlet /var/lib/runlet /bin/bash
    make_folder /var/lib/runlet 750 runlet
}

prepare_server() {
    make_user runlet-server /var/lib/runlet-server /usr/sbin/nologin
    make_folder /var/lib/runlet-server 700 runlet-server
}
