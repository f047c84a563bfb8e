#!/usr/bin/env bash
#
# Builds the fuzzers and runs them.
#
#   tests/fuzz/run.sh [--seconds N] [TARGET...]      each target, or those named, for N seconds (default 10)
#   tests/fuzz/run.sh --list                         the targets
#   tests/fuzz/run.sh --build                        builds them, and no more
#   tests/fuzz/run.sh --replay TARGET FILE           one input again, after a crash
#
# It prints a table, and fails when any input broke a promise; the input's path is printed, and stays in tests/fuzz/target/artifacts/.
# What was found to be interesting stays in tests/fuzz/target/corpus/, so that the next run begins there.
#
# CARGO        the cargo to run (default cargo)
# FUZZ_JOBS    targets that run at a time (default: one for each processor)
# FORGE_DATA   recordings of real forges, whose answers become seeds where the directory exists
#
# No nightly compiler is needed: only the sanitizers are unstable, and the code is safe Rust (`unsafe_code = "forbid"`), where they would
# find nothing but double the time to build. Debug assertions and overflow checks are on.
set -euo pipefail

readonly cargo_fuzz_version=0.13.2 memory_mb=1024

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/fuzz
work=$here/target
export CARGO=${CARGO:-cargo}

mapfile -t all < <(sed -n 's/^    ("\([a-z_]*\)", [a-z]*::[a-z_]*),$/\1/p' "$here/src/main.rs")
[ ${#all[@]} -gt 10 ] || { echo "run.sh: the targets could not be read from main.rs" >&2; exit 70; }

usage() { sed -n '3,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

seconds=10
replay=
build_only=false
chosen=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2:?}; shift 2 ;;
    --list) printf '%s\n' "${all[@]}"; exit 0 ;;
    --build) build_only=true; shift ;;
    --replay) [ $# -eq 3 ] || usage; chosen=("$2"); replay=$3; shift 3 ;;
    -*) usage ;;
    *) chosen+=("$1"); shift ;;
    esac
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || usage
[ ${#chosen[@]} -gt 0 ] || chosen=("${all[@]}")
for target in "${chosen[@]}"; do
    printf '%s\n' "${all[@]}" | grep -qx "$target" || { echo "run.sh: there is no target $target; --list shows them" >&2; exit 2; }
done

# cargo-fuzz, where there is none, goes into a cache of our own.
tools=${XDG_CACHE_HOME:-$HOME/.cache}/cofferdam/tools
PATH=$tools/bin:$PATH
"$root/deploy/packages.sh" c++=g++
if ! command -v cargo-fuzz >/dev/null; then
    # Not from within the project, whose own settings it would be built with.
    (cd / && "$CARGO" install --locked --quiet --root "$tools" "cargo-fuzz@$cargo_fuzz_version")
fi

started=$SECONDS
# Its lock file must fit before anything is built: cargo-fuzz knows no --locked.
"$CARGO" metadata --locked --format-version 1 --manifest-path "$here/Cargo.toml" >/dev/null
RUSTC_WRAPPER=$here/rustc.sh cargo-fuzz fuzz build --fuzz-dir "$here" --sanitizer none all
printf 'built in %d s\n' $((SECONDS - started))
if $build_only; then exit; fi
program=$(ls "$work"/*/release/all)

if [ -n "$replay" ]; then
    COFFERDAM_FUZZ=${chosen[0]} exec "$program" -rss_limit_mb=$memory_mb "$replay"
fi

# Answers of real forges, one file each, where the recordings are at hand. They are not part of the project.
recorded=$work/recorded
if [ -d "${FORGE_DATA:-}" ] && [ ! -d "$recorded" ]; then
    mkdir -p "$recorded.new"
    find "$FORGE_DATA" -name 'recorded*.jsonl' -print0 | sort -z | xargs -0 -r cat |
        jq -c '.body | if type == "array" then .[0] else . end | select(type == "object")' 2>/dev/null |
        awk -v to="$recorded.new" 'length($0) < 12000 && n < 300 && !seen[substr($0, 1, 60)]++ { print > (to "/" n++ ".json") }' || true
    mv "$recorded.new" "$recorded"
fi

# one TARGET: runs it, and leaves one line of figures and the exit code behind.
one() {
    local target=$1 log=$work/logs/$1.log corpus=$work/corpus/$1 code=0 seeds=()
    mkdir -p "$work/logs" "$corpus" "$work/artifacts/$target"
    [ ! -d "$here/seeds/$target" ] || seeds+=("$here/seeds/$target")
    [ "$target" != forge_json ] || [ ! -d "$recorded" ] || seeds+=("$recorded")
    COFFERDAM_FUZZ=$target "$program" -max_total_time="$seconds" -rss_limit_mb=$memory_mb -timeout=10 -max_len=16384 -dict="$here/words.dict" \
        -artifact_prefix="$work/artifacts/$target/" -print_final_stats=1 "$corpus" "${seeds[@]}" >"$log" 2>&1 || code=$?
    local runs rate covered fresh
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    fresh=$(sed -n 's/^stat::new_units_added: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    local crash=-
    if [ "$code" -ne 0 ]; then
        crash=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        crash=${crash:-"exit code $code, see $log"}
    fi
    printf '%-16s %11s %8s %8s %10s  %s\n' "$target" "${runs:-?}" "${rate:-?}" "${covered:-?}" "${fresh:-?}" "$crash" >"$work/logs/$target.line"
    if [ "$code" -ne 0 ]; then
        { grep -m 1 -A 2 -e 'panicked at' -e 'ERROR: libFuzzer' "$log" | cut -c 1-600 || true; } >>"$work/logs/$target.line"
    fi
    echo "$code" >"$work/logs/$target.code"
}

jobs_at_once=${FUZZ_JOBS:-$(nproc)}
running=0
for target in "${chosen[@]}"; do
    if [ "$running" -ge "$jobs_at_once" ]; then
        wait -n
        running=$((running - 1))
    fi
    rm -f "$work/logs/$target.code"
    one "$target" &
    running=$((running + 1))
done
wait

printf '%-16s %11s %8s %8s %10s  %s\n' target runs 'runs/s' coverage 'new inputs' crash
failed=0
for target in "${chosen[@]}"; do
    cat "$work/logs/$target.line"
    [ "$(cat "$work/logs/$target.code" 2>/dev/null)" = 0 ] || failed=$((failed + 1))
done
if [ "$failed" -gt 0 ]; then
    printf '%d of %d targets FAILED; look again with tests/fuzz/run.sh --replay TARGET FILE\n' "$failed" "${#chosen[@]}"
    exit 1
fi
printf '%d targets, %d s each, no promise was broken\n' "${#chosen[@]}" "$seconds"
