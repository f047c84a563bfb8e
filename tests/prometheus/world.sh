# shellcheck shell=bash disable=SC2154
# A test forge and one worker on loopback, for the scripts that look at a worker as an operator does. Sourced, not run: it takes $scratch and
# leaves what it started in `pids`, and the worker's address in `worker`. It needs COFFERDAM_TEST_AMQP, COFFERDAM_TEST_INSIDE and
# COFFERDAM_TEST_FORGE; the worker's program is the first argument of start_worker.

: "${COFFERDAM_TEST_AMQP:?tests/rabbitmq.sh start prints it}" "${COFFERDAM_TEST_INSIDE:?sandbox-images/static.sh prints it}"
: "${COFFERDAM_TEST_FORGE:?the test forge of cargo build --workspace}"
pids=()

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Ends what was started, and shows the logs when something failed.
clean_up() {
    local code=$? pid
    trap '' INT TERM HUP
    for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" 2>/dev/null || true; done
    [ "$code" -eq 0 ] || tail -n 20 "$scratch"/*.log 2>/dev/null || true
    rm -rf "$scratch"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# until_true SECONDS WHAT COMMAND...: the seconds are a quiet machine's, as in tests/path/harness.rs.
until_true() {
    local deadline=$((SECONDS + $1 * ${COFFERDAM_TEST_SLOWNESS:-1})) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || die "$what did not come true in time"
        sleep 0.2
    done
}

address() { jq -rR 'fromjson? | select(.message == "admin address") | .address' "$scratch/worker.log" | grep .; }
is_ready() { curl -fsS -o "$scratch/answer" "http://$worker/readyz" 2>/dev/null; }

start_forge() {
    # With rate limits, as gitlab.com and github.com have them.
    {
        cat tests/support/seeds/demo.toml
        printf '\n[gitlab]\nrate_limit = 2000\n[github]\nrate_limit = 5000\n'
    } >"$scratch/seed.toml"
    "$COFFERDAM_TEST_FORGE" --seed "$scratch/seed.toml" --data "$scratch/forge" --ready-file "$scratch/ready" \
        --max-lifetime $((300 * ${COFFERDAM_TEST_SLOWNESS:-1})) --parent-pid $$ >"$scratch/forge.log" 2>&1 &
    pids+=($!)
    until_true 20 "the test forge" test -s "$scratch/ready"
}

# start_worker PROGRAM
start_worker() {
    # Settings of a real worker are not this one's.
    unset "${!COFFERDAM__@}"
    export COFFERDAM_TOKEN_LAB=test-gitlab-api COFFERDAM_TOKEN_HUB=test-github-repo COFFERDAM_CONFIG=$scratch/config.toml
    prefix=watch-$$
    cat >"$scratch/config.toml" <<END
worker = "watch-${scratch##*.}"
state_dir = "$scratch/state"
default_agent = "scripted"
[sandbox]
inside = "$COFFERDAM_TEST_INSIDE"
warm = 1
[forge]
allow_http = true
[queue]
url = "$COFFERDAM_TEST_AMQP"
prefix = "$prefix"
[admin]
listen = "127.0.0.1:0"
[agents.scripted]
image = "cofferdam/sandbox-scripted:test"
command = ["scripted-agent", "acp"]
co_author = "Scripted Agent <scripted@agents.example>"
[models.example]
url = "http://127.0.0.1:9"
END
    "$1" run >"$scratch/out.log" 2>"$scratch/worker.log" &
    worker_pid=$!
    pids+=("$worker_pid")
    until_true 30 "the admin address" address >/dev/null
    worker=$(address)
    until_true 30 "readiness" is_ready
}

# A task over both projects, on standard output.
task() {
    jq -n --slurpfile ready "$scratch/ready" --arg session "$1" '{version: 1, session: $session,
        prompt: "!write greeter/a.txt b\n!commit greeter One\n!write website/a.txt b\n!commit website One",
        projects: [{connection: "lab", path: "platform/tools/greeter"}, {connection: "hub", path: "acme/website"}],
        connections: {lab: {forge: "gitlab", url: $ready[0].gitlab, credential: {env: "COFFERDAM_TOKEN_LAB"}},
            hub: {forge: "github", url: $ready[0].github, credential: {env: "COFFERDAM_TOKEN_HUB"}}}}'
}
