#!/usr/bin/env bash
#
# Measures what sessions cost: against `docker run`, against home-made workers over celery and dramatiq (peers/), in parallel, over a slow forge, idle,
# and as finished ones grow many. Tells all goals in one table (report.py). Sets everything up by itself.
#
#   tests/bench/run.sh               everything, 10 rounds, with peers, then `cargo bench` of the pure parts: an hour; fails where a goal is missed
#   tests/bench/run.sh --quick       5 rounds, 10 idle sessions, no peers, a build that is linked quickly: three minutes; fails where a ratio misses
#                                    its goal by more than half
#   tests/bench/run.sh --rounds N    as many rounds as that
#   tests/bench/run.sh --only PART   that part alone (warm, cold, parallel, far, live, growth, huge); may be repeated
#   tests/bench/run.sh --build [--quick]   builds what is measured, and no more
#
# The rounds alternate (docker run, a session, a bare clone, docker run, ...), so a machine that gets slower in between makes all of
# them slower: read the ratios. Only loopback is used; what was started here is stopped at the end, RabbitMQ too unless it ran before.
#
# CARGO                  the cargo to build with (default cargo)
# STATIC_TARGET_DIR      where static builds are kept (default target/static)
# COFFERDAM_TEST_AMQP    a broker to use instead of the one that tests/rabbitmq.sh starts
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$root/target}
static=${STATIC_TARGET_DIR:-$root/target/static}

say() { printf 'bench: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 2
}

command -v python3 >/dev/null || die "python3 is missing: install the distribution's python3"
docker info >/dev/null 2>&1 || "$root/deploy/docker.sh" start >&2

build_only=false profile=release
if [ "${1:-}" = --build ]; then
    build_only=true
    shift
fi
if [ "${1:-}" = --quick ]; then profile=quick; fi

say "building ($profile)"
(cd "$root" && "$cargo" build --quiet --profile "$profile" --locked -p cofferdam -p cofferdam-test-support --bin cofferdam --bin test-forge)
inside=$(CARGO=$cargo STATIC_TARGET_DIR=$static "$root/sandbox-images/static.sh")
CARGO=$cargo STATIC_TARGET_DIR=$static "$root/tests/support/image/build.sh"
if $build_only; then exit; fi

if [ -z "${COFFERDAM_TEST_AMQP:-}" ]; then
    if ! COFFERDAM_TEST_AMQP=$("$root/tests/rabbitmq.sh" status 2>/dev/null); then
        COFFERDAM_TEST_AMQP=$("$root/tests/rabbitmq.sh" start)
        trap '"$root/tests/rabbitmq.sh" stop' EXIT
    fi
fi
export COFFERDAM_TEST_AMQP

peers=()
if [ "${1:-}" != --quick ]; then
    # What the usual home-made worker takes for the same session (peers/), with pinned libraries.
    environment=$target/bench-peers
    [ -x "$environment/bin/python" ] || python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/peers/requirements.txt"
    peers=(--peers "$environment/bin/python")
fi

good=0
python3 "$here/bench.py" --bin "$target/$profile" --inside "$inside" --cache "$target/bench-cache" "${peers[@]}" "$@" || good=1
if [ $# = 0 ]; then
    say "the pure parts"
    (cd "$root" && "$cargo" bench --quiet --locked --bench pure) || good=1
fi
exit $good
