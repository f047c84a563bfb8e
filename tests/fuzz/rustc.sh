#!/usr/bin/env bash
# Stands before rustc while the fuzzers are built (cargo's RUSTC_WRAPPER): only the crates whose paths the fuzzer should tell apart
# are instrumented. cargo-fuzz would instrument all of them, and libFuzzer then looks through the counters of 400 crates after every run.
instrumented=' cofferdam cofferdam_inside all serde_json url idna percent_encoding '
rustc=$1 name='' previous=''
shift
for argument in "$@"; do
    [ "$previous" != --crate-name ] || name=$argument
    previous=$argument
done
kept=()
for argument in "$@"; do
    case $argument in
    # It would compile each crate on one processor.
    -Ccodegen-units=1) continue ;;
    esac
    [[ $instrumented != *" $name "* ]] || { kept+=("$argument"); continue; }
    case $argument in
    -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
    *) kept+=("$argument") ;;
    esac
done
exec "$rustc" "${kept[@]}"
