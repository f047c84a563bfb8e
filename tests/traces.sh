#!/usr/bin/env bash
#
# Traces (the feature `otel`, off by default): builds a worker with it, has it export to a collector on loopback, and looks at the spans of one
# session whose task came with a traceparent.
#
# It needs what tests/run.sh has built and started, as tests/prometheus.sh does. CARGO: the cargo to run. COFFERDAM_TEST_TRACED: a program
# that was built with the feature already. It leaves nothing running.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
"$root/deploy/packages.sh" curl jq python3
scratch=$(mktemp -d /tmp/cd-traces.XXXXXX) prefix='' worker_pid=''
# shellcheck source=tests/prometheus/world.sh
. tests/prometheus/world.sh

traced=${COFFERDAM_TEST_TRACED:-}
if [ -z "$traced" ]; then
    cargo=${CARGO:-cargo}
    "$cargo" build --locked --workspace --features cofferdam/otel --bin cofferdam
    target=$("$cargo" metadata --locked --no-deps --format-version 1 | jq -r .target_directory)/debug
    traced=$scratch/traced
    cp "$target/cofferdam" "$traced"
    # The usual program is put back in its place: nothing is compiled for it. The whole workspace each time, so that no library is either.
    "$cargo" build --locked --workspace --bin cofferdam
fi

python3 tests/prometheus/collector.py "$scratch/spans" "$scratch/port" >"$scratch/collector.log" 2>&1 &
pids+=($!)
until_true 20 "the collector" test -s "$scratch/port"
start_forge
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$(<"$scratch/port")
export OTEL_EXPORTER_OTLP_ENDPOINT
start_worker "$traced"

session=$(cat /proc/sys/kernel/random/uuid)
trace=4bf92f3577b34da6a3ce929d0e0e4736
task "$session" >"$scratch/task.json"
python3 tests/prometheus/traced.py run "$COFFERDAM_TEST_AMQP" "$prefix" "$scratch/task.json" "00-$trace-00f067aa0ba902b7-01" >"$scratch/headers"
# The last spans leave with the worker.
kill -TERM "$worker_pid"
wait "$worker_pid"
[ -s "$scratch/spans" ] || die "no span reached the collector: was the worker built with the feature otel?"
python3 tests/prometheus/traced.py spans "$scratch/spans" "$scratch/headers" "$session" "$trace" 00f067aa0ba902b7
jq -rR 'fromjson? | select(.message // "" | startswith("session ended")) | .span.trace_id' "$scratch/worker.log" | grep -qx "$trace" ||
    die "the log's line does not bear the trace's id"
printf 'one trace over orchestrator, worker, forges and sandbox\n'
