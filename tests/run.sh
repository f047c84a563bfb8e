#!/usr/bin/env bash
#
# Sets up what the tests need and runs all of them: formatting, lints, unit and integration tests against a real RabbitMQ, a real
# Docker engine and real git, strangers' clients at the test forge, documentation, what is deployed, the fuzzers, the demo, the benchmark.
#
#   tests/run.sh [--full]
#
#   --full   also the long forms: the benchmark with all its rounds, the fuzzers for a minute each, integration tests that wait for long,
#            every one on gVisor, faults of the broker itself, the random run over 200 sessions, the soak over 500, a session with every
#            real agent
#
# Every section runs, whatever became of those before it; a table at the end says which failed, and the exit code is 1 if any did.
# Root can run it on a bare machine: what is missing is installed from the distribution. Without root, Docker must answer already and the
# packages must be there.
#
# It leaves no process behind but the Docker daemon, which it starts where none answers (deploy/docker.sh stop ends that one). The RabbitMQ
# node is its own and is removed at the end, unless it ran before. It reaches no forge and no model.
#
# CARGO        the cargo to run (default cargo)
# FORGE_DATA   recordings of real forges to check against (default: forge-data in a directory `shared` beside this one, where it exists)
set -uo pipefail

full=false
case ${1:-} in
'') ;;
--full) full=true ;;
*)
    printf 'usage: tests/run.sh [--full]\n' >&2
    exit 2
    ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 70
# Incremental compilation costs time and disk where everything is compiled once.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
export CARGO=${CARGO:-cargo} CI=true INSTA_UPDATE=no CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# Settings of a real worker are not the tests'.
unset "${!COFFERDAM__@}" COFFERDAM_CONFIG

# Conditions come true later where compilers run beside the tests.
export COFFERDAM_TEST_SLOWNESS=3

# A test waits for containers and clocks half of its time: one more than there are processors keeps those busy.
at_once=$(($(nproc) + 1))

scratch=$(mktemp -d "${TMPDIR:-/tmp}/cofferdam-tests.XXXXXX")
own_broker=false
results=()
failed=0
declare -A lanes=()

finish() {
    local code=$? pid
    trap '' INT TERM HUP
    # Each is the leader of its own process group.
    for pid in "${lanes[@]}"; do kill -- "-$pid" 2>/dev/null; done
    if $own_broker; then tests/rabbitmq.sh wipe; fi
    rm -rf "$scratch"
    exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# section NAME COMMAND...: runs it with a heading, and keeps what became of it and how long it took.
section() {
    local name=$1 started=$SECONDS code=0
    shift
    printf '\n==== %s\n' "$name"
    "$@" </dev/null 2>&1 || code=$?
    record "$name" "$code" $((SECONDS - started))
    return "$code"
}

record() {
    local word=passed
    if [ "$2" -ne 0 ]; then
        word="FAILED ($2)"
        failed=$((failed + 1))
    fi
    results+=("$(printf '%-44s %-12s %5d s' "$1" "$word" "$3")")
    printf -- '---- %s: %s, %d s\n' "$1" "$word" "$3"
}

# aside NAME COMMAND...: begins it beside what follows. What waits for a network or for a clock shares the processors well.
aside() {
    local name=$1
    shift
    # A process group of its own, which ends with this script.
    set -m
    (
        code=0
        SECONDS=0
        "$@" </dev/null >"$scratch/$name.log" 2>&1 || code=$?
        printf '%d %d\n' "$code" "$SECONDS" >"$scratch/$name.end"
    ) &
    lanes[$name]=$!
    set +m
}

# joined NAME: waits for it, and then tells of it as of any section.
joined() {
    local name=$1 code=1 took=0
    [ -n "${lanes[$name]:-}" ] || return
    printf '\n==== %s (ran beside others)\n' "$name"
    wait "${lanes[$name]}"
    unset "lanes[$name]"
    cat "$scratch/$name.log"
    read -r code took <"$scratch/$name.end"
    record "$name" "$code" "$took"
    return "$code"
}

# Takes only what nobody else needs of the processors.
idle() {
    if command -v chrt >/dev/null; then chrt --idle 0 "$@"; else nice -n 19 "$@"; fi
}

skip() {
    printf '\n==== %s\n---- skipped: %s\n' "$1" "$2"
    results+=("$(printf '%-44s %-12s         %s' "$1" skipped "$2")")
}

run_fuzz() {
    if $full; then tests/fuzz/run.sh --seconds 60; else tests/fuzz/run.sh --seconds 4; fi
}

install_tools() {
    deploy/packages.sh git curl jq python3 shellcheck cc=gcc,libc6-dev node=nodejs npm age groff=groff-base ip=iproute2 || return
    # No command shows whether virtual environments can be made: an absent one by the package's name stands for it.
    python3 -c 'import ensurepip, venv' 2>/dev/null || deploy/packages.sh python3-venv || return
    command -v "$CARGO" >/dev/null || {
        printf 'there is no cargo here: a Rust toolchain is the one thing that this script does not install\n'
        return 1
    }
    # A toolchain may come without these two.
    if ! "$CARGO" fmt --version || ! "$CARGO" clippy --version; then
        rustup component add rustfmt clippy
    fi
}

start_broker() {
    if tests/rabbitmq.sh status >"$scratch/amqp" 2>/dev/null; then
        printf 'a test node runs already; it is used and left alone\n'
    else
        own_broker=true
        tests/rabbitmq.sh start >"$scratch/amqp" || return
    fi
    # A virtual host of this run's own: what others do on the node is not seen.
    tests/rabbitmq.sh vhost "run-$$" >"$scratch/amqp" || return
    COFFERDAM_TEST_AMQP=$(<"$scratch/amqp")
    export COFFERDAM_TEST_AMQP
    printf 'RabbitMQ: %s\n' "$COFFERDAM_TEST_AMQP"
}

build_inside() {
    COFFERDAM_TEST_INSIDE=$(sandbox-images/static.sh) && export COFFERDAM_TEST_INSIDE
}

# Every script, by its first line: a new one cannot be forgotten.
scripts() {
    local file first
    git ls-files -z | while IFS= read -r -d '' file; do
        first=
        [ ! -f "$file" ] || IFS= read -r -n 64 first <"$file" 2>/dev/null || true
        [[ $first =~ ^#!.*sh$ ]] && printf '%s\n' "$file"
    done
}

check_scripts() {
    local list
    mapfile -t list < <(scripts)
    [ ${#list[@]} -gt 0 ] || return 1
    printf '%s\n' "${list[@]}"
    local script code=0
    for script in "${list[@]}"; do
        bash -n "$script" || code=1
        [ -x "$script" ] || { printf '%s cannot be executed\n' "$script"; code=1; }
    done
    if command -v shellcheck >/dev/null; then
        shellcheck --severity=warning "${list[@]}" || code=1
    else
        printf 'shellcheck is not there: only the syntax was checked\n'
    fi
    return "$code"
}

# In a directory of its own: two cargos in one would wait for each other.
check_lints() {
    local checks=${CARGO_TARGET_DIR:-$root/target}/checks
    "$CARGO" clippy --locked --target-dir "$checks" --workspace --all-targets -- -D warnings || return
    "$CARGO" clippy --locked --target-dir "$checks" --workspace --features cofferdam/otel -- -D warnings || return
    RUSTDOCFLAGS="-D warnings" "$CARGO" doc --locked --target-dir "$checks" --no-deps --workspace
}

# What runs last, built while tests run; both run without this too.
build_the_rest() {
    local form=()
    $full || form=(--quick)
    idle tests/fuzz/run.sh --build && idle tests/bench/run.sh --build "${form[@]}"
}

build_everything() {
    "$CARGO" test --locked --workspace --no-run || return
    target_directory=$("$CARGO" metadata --locked --no-deps --format-version 1 | jq -r .target_directory)
    # What runs beside tests builds nothing: it would take the program away under their hands.
    export COFFERDAM_TEST_FORGE=$target_directory/debug/test-forge COFFERDAM_TEST_BIN=$target_directory/debug
    [ -x "$COFFERDAM_TEST_FORGE" ]
}

run_tests() {
    if [ -z "${FORGE_DATA:-}" ] && [ -d ../shared/forge-data ]; then
        FORGE_DATA=$(cd ../shared/forge-data && pwd)
        export FORGE_DATA
    fi
    # All but the chaos suite, which has a section of its own: two at a time would be a third kind of chaos.
    local code=0 targets
    mapfile -t targets < <("$CARGO" metadata --locked --no-deps --format-version 1 |
        jq -r '.packages[].targets[] | select(.kind == ["test"] and .name != "chaos") | "--test", .name')
    [ ${#targets[@]} -gt 0 ] || return 1
    "$CARGO" test --locked --workspace --no-fail-fast --lib --bins "${targets[@]}" -- --test-threads="$at_once" || code=1
    # A dozen that wait for clocks most of the time. Those of real agents have a section of their own.
    if $full; then
        "$CARGO" test --locked --workspace --no-fail-fast --test path -- --test-threads="$at_once" --ignored --skip real_agents || code=1
    fi
    "$CARGO" test --locked --workspace --doc || code=1
    return "$code"
}

# Kill points and faults, a random run with its checker, a soak: in their short forms, or with the long ones after them.
run_chaos() {
    "$CARGO" test --locked --workspace --test chaos --no-fail-fast || return
    if $full; then "$CARGO" test --locked --workspace --test chaos --no-fail-fast -- --ignored --test-threads=1; fi
}

# A whole session with each real agent but opencode, which the integration tests have. An image takes up to a minute where nothing is cached.
check_agents() {
    local names
    mapfile -t names < <(sandbox-images/build.sh list | grep -vx opencode)
    if $full; then
        sandbox-images/check.sh --remove "${names[@]}"
    else
        sandbox-images/check.sh --remove --seconds 60 "${names[@]}"
    fi
}

# What disturbs every user of a broker, on a node of its own.
run_whole_broker() (
    export RABBITMQ_TEST_PORT=5674
    address=$(tests/rabbitmq.sh start) || exit
    trap 'tests/rabbitmq.sh wipe' EXIT
    export COFFERDAM_TEST_AMQP=$address/%2f COFFERDAM_TEST_RABBITMQCTL='tests/rabbitmq.sh ctl'
    "$CARGO" test --locked --workspace --lib whole_broker -- --ignored --test-threads=1
)

# Whether a container starts on gVisor here; it is registered with the daemon where it is not. Says why not.
prepare_runsc() {
    deploy/docker.sh runsc && timeout 60 docker run --rm --network none --runtime runsc cofferdam/sandbox-base:12 true
}

# The integration tests with gVisor under every sandbox: the main job and the escape suite, or all of them.
run_on_runsc() {
    local selection=(main_job:: escape:: walls::)
    # What these three say of memory and PID 1 is runc's; what gVisor does instead stands in the README, and the escape suite shows it.
    if $full; then
        selection=(--include-ignored --skip real_agents --skip a_child_that_is_killed_for_memory --skip a_turn_that_fails_later --skip nothing_in_a_sandbox_can_look_into_its_pid_1)
    fi
    COFFERDAM_TEST_RUNTIME=runsc "$CARGO" test --locked --workspace --test path --no-fail-fast -- --test-threads="$at_once" "${selection[@]}"
}

# What the stand-in for a cluster checks requests with: the published schemas, in a package.
prepare_cluster() {
    python3 -m venv "$scratch/cluster" || return
    "$scratch/cluster/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 || return
    export COFFERDAM_TEST_PYTHON=$scratch/cluster/bin/python
}

# The integration tests that know no engine, with a pod for every sandbox, and the escape suite without its control, which runs in no sandbox.
# Set-ups apart from the agent are not there.
run_in_cluster() {
    COFFERDAM_TEST_BACKEND=kubernetes "$CARGO" test --locked --workspace --test path --no-fail-fast -- --test-threads="$at_once" \
        --skip set_up --skip handover --skip unsealed agents:: escape:: add_project:: git_inside:: git_route:: egress:: conversation:: \
        devcontainer::
}

check_examples() {
    local cofferdam=${target_directory:?}/debug/cofferdam kind
    # deploy/config.example.toml and the README's own are checked by tests/path/operator.rs, which makes the files that they name.
    "$cofferdam" --config deploy/demo/config.toml config check || return
    # A task that is read as one gets as far as the broker, which is nowhere; one that is not ends with 65.
    local code=0
    COFFERDAM__QUEUE__URL=amqp://127.0.0.1:1 "$cofferdam" submit deploy/task.example.json || code=$?
    [ "$code" -eq 69 ] || { printf 'deploy/task.example.json: exit code %d\n' "$code"; return 1; }
    for kind in task control event config; do
        "$cofferdam" schema "$kind" | jq -e .title || return
    done
}

run_demo() {
    local events=$scratch/demo.events worker
    deploy/demo.sh --json >"$events" || { cat "$events"; return 1; }
    printf '%d events\n' "$(wc -l <"$events")"
    jq -es '
        def name: "\(.connection):\(.path)";
        (map(select(.data.event == "change_request_opened").data.project | name) | sort == ["hub:acme/website", "lab:platform/tools/greeter"])
        and (last.data | .event == "finished" and .outcome.result == "success" and (.outcome.projects | length == 2))
        and (map(.data.seq) as $seq | $seq == ($seq | unique))' "$events" || { cat "$events"; return 1; }
    # Its worker's name is the ending of its directory's.
    worker=$(jq -rs '.[0].source | split("/") | last' "$events")
    # The label is the name and something of the state directory.
    if docker ps -a --filter label=dev.cofferdam.worker --format '{{.Label "dev.cofferdam.worker"}}' | grep -q "^$worker-"; then
        printf 'it left a container behind\n'
        return 1
    fi
    [ ! -e "/tmp/cofferdam-demo.${worker#demo-}" ] || { printf 'it left its directory behind\n'; return 1; }
}

run_benchmark() {
    if $full; then tests/bench/run.sh; else tests/bench/run.sh --quick; fi
}

section "tools" install_tools
section "scripts" check_scripts
section "formatting" "$CARGO" fmt --all --check
section "formatting of the fuzzers" "$CARGO" fmt --check --manifest-path tests/fuzz/Cargo.toml
# What follows waits for downloads, or is one long compilation on one processor: the other one checks.
aside "lints and documentation" check_lints
section "Docker" deploy/docker.sh start
section "RabbitMQ" start_broker
section "static inside" build_inside
section "sandbox images: base and scripted agent" tests/support/image/build.sh
section "sandbox images: escape suite" tests/escape/build.sh
section "sandbox images: opencode" sandbox-images/build.sh opencode
section "the cluster's stand-in" prepare_cluster
if section "build" build_everything; then
    joined "lints and documentation"
    section "examples" check_examples
    # Tests wait for clocks most of their time.
    aside "build for fuzz and benchmark" build_the_rest
    section "tests" run_tests
    aside "judges" tests/judges.sh
    section "real agents" check_agents
    aside "deployment" tests/deploy.sh "${target_directory:?}/debug/cofferdam"
    section "tests in a cluster (its stand-in)" run_in_cluster
    section "chaos" run_chaos
    joined "judges"
    joined "deployment"
    section "Prometheus: rules, alerts, dashboard" tests/prometheus.sh
    if $full; then section "tests that disturb a whole broker" run_whole_broker; fi
    if prepare_runsc </dev/null >"$scratch/runsc" 2>&1; then
        section "tests on gVisor (runsc)" run_on_runsc
    else
        skip "tests on gVisor (runsc)" "no container starts on it here: $(tail -n 1 "$scratch/runsc" | cut -c 1-160)"
    fi
    joined "build for fuzz and benchmark"
    section "fuzz" run_fuzz
    section "demo" run_demo
    section "demo, a second time" run_demo
    section "benchmark" run_benchmark
    # Last, because it builds the program once more, with a feature.
    section "traces (feature otel)" tests/traces.sh
else
    joined "lints and documentation"
    for name in examples tests "real agents" "tests in a cluster (its stand-in)" chaos judges deployment "Prometheus: rules, alerts, dashboard" "tests on gVisor (runsc)" fuzz demo benchmark "traces (feature otel)"; do skip "$name" "nothing was built"; done
fi

printf '\n==== summary, %d s\n' "$SECONDS"
printf '%s\n' "${results[@]}"
if [ "$failed" -ne 0 ]; then
    printf '\n%d sections FAILED\n' "$failed"
    exit 1
fi
printf '\nall sections passed\n'
