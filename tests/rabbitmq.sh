#!/usr/bin/env bash
#
# A RabbitMQ node for the tests: private, on loopback only, beside any other node of this machine.
#
#   tests/rabbitmq.sh start          start it unless it runs; install the distribution's package first where it is missing;
#                                    print its address: amqp://guest:guest@127.0.0.1:PORT
#   tests/rabbitmq.sh vhost NAME     add a virtual host with every right for guest; print the address of it
#   tests/rabbitmq.sh restart        stop and start it; its durable queues and messages survive
#   tests/rabbitmq.sh status         print the address if it runs, else fail
#   tests/rabbitmq.sh ctl ARGS...    run rabbitmqctl against it
#   tests/rabbitmq.sh stop           stop this node and no other
#   tests/rabbitmq.sh wipe           stop it and remove all it kept
#
# RABBITMQ_TEST_PORT   its port (default 5673); nodes on different ports share nothing
# RABBITMQ_TEST_BASE   its directory (default: cofferdam-rabbitmq-PORT under ${TMPDIR:-/tmp})
# RABBITMQ_TEST_WAIT   seconds to wait until it answers (default 90)
set -euo pipefail

port=${RABBITMQ_TEST_PORT:-5673}
base=${RABBITMQ_TEST_BASE:-${TMPDIR:-/tmp}/cofferdam-rabbitmq-$port}
wait_seconds=${RABBITMQ_TEST_WAIT:-90}
node=cofferdam-test-$port@localhost
address=amqp://guest:guest@127.0.0.1:$port
pid_file=$base/node.pid
# The package's commands in PATH change to the user rabbitmq, who owns another node's cookie; these do not.
commands=/usr/lib/rabbitmq/bin

say() { printf 'rabbitmq.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

[[ $port =~ ^[0-9]+$ ]] || die "RABBITMQ_TEST_PORT is not a port: $port"

# All that tells this node from others. The machine's own settings (/etc/rabbitmq) are not read.
export HOME=$base
export RABBITMQ_NODENAME=$node RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$port RABBITMQ_DIST_PORT=$((port + 20000))
export RABBITMQ_BASE=$base RABBITMQ_MNESIA_BASE=$base/data RABBITMQ_LOG_BASE=$base/log RABBITMQ_PID_FILE=$pid_file
export RABBITMQ_CONF_ENV_FILE=$base/environment.conf RABBITMQ_CONFIG_FILE=$base/rabbitmq.conf
export RABBITMQ_ADVANCED_CONFIG_FILE=$base/no-advanced.config RABBITMQ_ENABLED_PLUGINS_FILE=$base/enabled_plugins
# Its schedulers do not spin while they wait: it shares the processors with what is tested and measured.
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
export ERL_EPMD_ADDRESS=127.0.0.1
unset RABBITMQ_HOME RABBITMQ_LOGS RABBITMQ_MNESIA_DIR RABBITMQ_CONFIG_FILES RABBITMQ_CTL_ERL_ARGS

ctl() { timeout "$wait_seconds" "$commands/rabbitmqctl" --node "$node" "$@"; }

# The process of our pid file, if it still is this node: a pid may have been given to something else since.
our_process() {
    local pid
    [ -s "$pid_file" ] || return 1
    pid=$(<"$pid_file")
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "-home $base " || return 1
    printf '%s\n' "$pid"
}

install_what_is_missing() {
    [ ! -x "$commands/rabbitmq-server" ] || return 0
    [ "$(id -u)" -eq 0 ] || die "rabbitmq-server is missing, and installing it needs root"
    command -v apt-get >/dev/null || die "rabbitmq-server is missing, and there is no apt-get here: install it by hand"
    say "installing rabbitmq-server from the distribution"
    apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
    # In runlevel 1 the package does not start a node of its own.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rabbitmq-server >&2 ||
        die "could not install rabbitmq-server"
}

write_settings() {
    mkdir -p "$base/data" "$base/log"
    chmod 0700 "$base"
    printf 'listeners.tcp.1 = 127.0.0.1:%s\nlog.console = false\nlog.file.level = warning\ndisk_free_limit.absolute = 50MB\n' \
        "$port" >"$RABBITMQ_CONFIG_FILE"
    printf '[].\n' >"$RABBITMQ_ENABLED_PLUGINS_FILE"
    : >"$RABBITMQ_CONF_ENV_FILE"
}

start() {
    local deadline=$((SECONDS + wait_seconds)) pid
    install_what_is_missing
    mkdir -p "$base"
    exec 9>"$base/lock"
    flock -w "$wait_seconds" 9 || die "another start of this node is still under way"
    if ! our_process >/dev/null; then
        write_settings
        rm -f "$pid_file"
        say "starting $node, log: $base/log"
        # No descriptor of ours goes along: neither the node nor the port mapper that it may start keeps a reader waiting.
        "$commands/rabbitmq-server" -detached </dev/null >"$base/log/start" 2>&1 9>&- ||
            { cat "$base/log/start" >&2; die "$node did not start"; }
    fi
    until pid=$(our_process) && ctl await_startup --timeout "$wait_seconds" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || die "$node did not answer within $wait_seconds s; log: $base/log"
        sleep 0.2
    done
    say "$node answers, pid $pid"
    printf '%s\n' "$address"
}

stop() {
    local deadline=$((SECONDS + wait_seconds)) pid
    if ! pid=$(our_process); then
        say "$node does not run; nothing to stop"
        return 0
    fi
    # The node takes SIGTERM as a wish to shut down in order.
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "$node (pid $pid) did not end within $wait_seconds s"
        sleep 0.1
    done
    rm -f "$pid_file"
    say "stopped $node"
}

vhost() {
    local name=$1
    [[ $name =~ ^[A-Za-z0-9_.-]{1,100}$ ]] || die "not a name for a virtual host: $name"
    our_process >/dev/null || die "$node does not run"
    # Adding one that exists is not an error to RabbitMQ.
    ctl --quiet add_vhost "$name" >&2
    ctl --quiet set_permissions --vhost "$name" guest '.*' '.*' '.*' >&2
    printf '%s/%s\n' "$address" "$name"
}

status() {
    if ! our_process >/dev/null || ! ctl --quiet ping >/dev/null 2>&1; then
        die "$node does not run"
    fi
    printf '%s\n' "$address"
}

case ${1:-start} in
start) start ;;
stop) stop ;;
restart)
    stop
    start
    ;;
status) status ;;
vhost) vhost "${2:-}" ;;
ctl)
    shift
    ctl "$@"
    ;;
wipe)
    stop
    rm -rf "$base"
    ;;
*) die "usage: tests/rabbitmq.sh start|stop|restart|status|vhost NAME|ctl ARGS...|wipe" ;;
esac
