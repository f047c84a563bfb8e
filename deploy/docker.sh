#!/usr/bin/env bash
#
# Makes a Docker daemon answer on this machine: for the demo, the tests and CI.
#
#   deploy/docker.sh [start]   start one unless one answers already; install it first where it is missing
#   deploy/docker.sh stop      stop the daemon that this script started, and no other
#   deploy/docker.sh status    say what answers
#   deploy/docker.sh runsc     as start, and register gVisor's runsc as a runtime of the daemon; the same as COFFERDAM_RUNSC=1 with start
#
# It works with systemd and without it. It never touches a daemon that it did not start (but for having it read its configuration again
# when runsc is asked for), never downloads anything but the distribution's own packages, and never opens a network socket: the daemon
# listens on its local socket only.
#
# runsc is installed from the distribution and added to daemon.json, whose other settings stay as they are; then the daemon reads it again,
# without a restart. Its arguments: --network=none, because nothing in a sandbox needs gVisor's network and without it Debian's runsc does
# not start there; --host-uds=open, because the sandbox's one way out is a unix socket of the worker. A runtime `runsc` that is there already
# is left as it is.
#
#
# COFFERDAM_DOCKER_STATE     directory of the pid file and the log (default: under ${XDG_RUNTIME_DIR:-/var/run})
# COFFERDAM_DOCKER_WAIT      seconds to wait until the daemon answers (default 60)
# COFFERDAM_DOCKER_CONFIG    the daemon's configuration file (default /etc/docker/daemon.json)
# COFFERDAM_RUNSC            1: register runsc too
# COFFERDAM_DOCKERD_OPTIONS  further dockerd options for unusual hosts, split at blanks
set -euo pipefail

state_directory=${COFFERDAM_DOCKER_STATE:-${XDG_RUNTIME_DIR:-/var/run}/cofferdam-docker}
wait_seconds=${COFFERDAM_DOCKER_WAIT:-60}
pid_file=$state_directory/dockerd.pid
log_file=$state_directory/dockerd.log
unit_file=$state_directory/started-by-systemd

say() { printf 'docker.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# Bounded: a daemon that hangs must not hang its caller.
answers() { timeout 15 docker info >/dev/null 2>&1; }

has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

need_root() { [ "$(id -u)" -eq 0 ] || die "$1 needs root: run this as root, or ask an administrator to start Docker"; }

# The daemon of our pid file, if it still is one: a pid may have been given to something else since.
our_daemon() {
    local pid
    [ -s "$pid_file" ] || return 1
    pid=$(<"$pid_file")
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 1
    printf '%s\n' "$pid"
}

install_packages() {
    need_root "installing $*"
    command -v apt-get >/dev/null || die "missing: $*; there is no apt-get here, so install them by hand"
    say "installing from the distribution: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
    apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@" ca-certificates >&2 || die "could not install $*"
    hash -r
}

install_what_is_missing() {
    local missing=()
    command -v dockerd >/dev/null && command -v docker >/dev/null || missing+=(docker.io)
    command -v iptables >/dev/null || missing+=(iptables)
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

has_runsc() { timeout 15 docker info --format '{{range $name, $_ := .Runtimes}}{{println $name}}{{end}}' 2>/dev/null | grep -qx runsc; }

# The daemon reads its configuration again on this signal; containers go on.
reload() {
    local pid
    if pid=$(our_daemon); then
        kill -HUP "$pid"
    elif has_systemd && systemctl is-active -q docker; then
        systemctl reload docker
    else
        pid=$(pidof -s dockerd) || die "the daemon runs elsewhere: have it read $1 again"
        kill -HUP "$pid"
    fi
}

register_runsc() {
    local config=${COFFERDAM_DOCKER_CONFIG:-/etc/docker/daemon.json} program merged deadline
    if has_runsc; then
        say "the daemon has a runtime runsc already; it is left as it is"
        return 0
    fi
    need_root "registering runsc"
    command -v runsc >/dev/null || install_packages runsc
    command -v jq >/dev/null || install_packages jq
    program=$(command -v runsc)
    mkdir -p "$(dirname "$config")"
    merged=$(mktemp "$config.XXXXXX")
    # A file that is no JSON object stops here and stays as it is.
    if ! { if [ -s "$config" ]; then cat "$config"; else echo '{}'; fi; } | jq --arg program "$program" \
        '.runtimes = ({runsc: {path: $program, runtimeArgs: ["--network=none", "--host-uds=open"]}} + (.runtimes // {}))' >"$merged"; then
        rm -f "$merged"
        die "$config cannot be merged with: it is not a JSON object"
    fi
    # The daemon reads the file under its own name: mode and owner stay where there was one.
    if [ -e "$config" ]; then cat "$merged" >"$config"; else install -m 0644 "$merged" "$config"; fi
    rm -f "$merged"
    reload "$config"
    deadline=$((SECONDS + wait_seconds))
    until has_runsc; do
        [ "$SECONDS" -lt "$deadline" ] || die "the daemon did not take runsc from $config within ${wait_seconds} s; see its log"
        sleep 0.2
    done
    say "registered $program as the runtime runsc"
}

wait_until_it_answers() {
    local pid=${1:-} deadline=$((SECONDS + wait_seconds))
    until answers; do
        if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
            tail -n 20 "$log_file" >&2 || true
            die "dockerd ended before it answered; its log: $log_file"
        fi
        [ "$SECONDS" -lt "$deadline" ] || die "dockerd did not answer within ${wait_seconds} s; log: $log_file"
        sleep 0.3
    done
}

# Without an init system nobody may have mounted the controllers, and a container without limits is no sandbox.
mount_control_groups() {
    if ! mountpoint -q /sys/fs/cgroup; then
        say "no control groups are mounted; mounting version 2"
        mount -t cgroup2 cgroup2 /sys/fs/cgroup || die "cannot mount control groups: no container could be limited"
    fi
}

start_by_hand() {
    local options=() pid
    need_root "starting dockerd"
    mount_control_groups
    rm -f "$pid_file"
    read -r -a options <<<"${COFFERDAM_DOCKERD_OPTIONS:-}" || true
    say "no systemd here: starting dockerd by hand, log: $log_file"
    # A session of its own without any inherited descriptor: it outlives this script, and nobody who reads this script's
    # output, or holds its lock, waits for it. A background job leads no process group, so setsid does not fork and $! is dockerd.
    setsid nohup dockerd --pidfile "$pid_file" ${options[@]+"${options[@]}"} </dev/null >>"$log_file" 2>&1 9>&- &
    pid=$!
    wait_until_it_answers "$pid"
    say "dockerd answers, pid $pid"
}

start_by_systemd() {
    need_root "systemctl start docker"
    say "starting the docker unit of systemd"
    systemctl start docker || die "systemctl start docker failed; see: journalctl -u docker"
    wait_until_it_answers
    : >"$unit_file"
    say "the docker unit answers"
}

# The engine says itself which limits it can enforce; a sandbox needs these two.
report_limits() {
    local memory pids
    memory=$(timeout 15 docker info --format '{{.MemoryLimit}}' 2>/dev/null) || memory=unknown
    pids=$(timeout 15 docker info --format '{{.PidsLimit}}' 2>/dev/null) || pids=unknown
    [ "$memory $pids" = "true true" ] || say "warning: memory limit: $memory, pids limit: $pids; sandboxes need both"
}

start() {
    if command -v docker >/dev/null && answers; then
        say "a Docker daemon answers already; nothing to do"
        return 0
    fi
    [ -z "${DOCKER_HOST:-}" ] || die "DOCKER_HOST is set to $DOCKER_HOST, and nothing answers there; unset it to have one started here"
    need_root "starting Docker"
    mkdir -p "$state_directory"
    exec 9>"$state_directory/lock"
    flock -w $((wait_seconds * 2)) 9 || die "another start is still under way"
    if command -v docker >/dev/null && answers; then
        say "a Docker daemon was started meanwhile; nothing to do"
        return 0
    fi
    install_what_is_missing
    if has_systemd; then
        start_by_systemd
    elif grep -qsx dockerd /proc/[0-9]*/comm; then
        # The package's own start script, or somebody else, was faster: a second daemon would fight over its data root.
        say "a dockerd is coming up that this script did not start; waiting for it"
        wait_until_it_answers
    else
        start_by_hand
    fi
    report_limits
}

stop() {
    local pid deadline=$((SECONDS + wait_seconds))
    if [ -e "$unit_file" ] && has_systemd; then
        need_root "systemctl stop docker"
        # The socket unit first, or the next client would start the service again.
        systemctl stop docker.socket docker.service
        rm -f "$unit_file"
        say "stopped the docker unit"
        return 0
    fi
    if ! pid=$(our_daemon); then
        say "no daemon here was started by this script; nothing to stop"
        return 0
    fi
    need_root "stopping dockerd"
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "dockerd (pid $pid) did not end within ${wait_seconds} s"
        sleep 0.2
    done
    rm -f "$pid_file"
    say "stopped dockerd, pid $pid"
}

status() {
    local pid
    if pid=$(our_daemon); then
        say "started by this script, pid $pid"
    fi
    if command -v docker >/dev/null && answers; then
        timeout 15 docker info --format 'Docker {{.ServerVersion}}, cgroup version {{.CgroupVersion}}, storage {{.Driver}}'
    else
        say "no Docker daemon answers"
        return 1
    fi
}

case ${1:-start} in
start)
    start
    if [ "${COFFERDAM_RUNSC:-}" = 1 ]; then register_runsc; fi
    ;;
runsc)
    start
    register_runsc
    ;;
stop) stop ;;
status) status ;;
*) die "usage: deploy/docker.sh [start|stop|status|runsc]" ;;
esac
