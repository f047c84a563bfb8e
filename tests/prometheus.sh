#!/usr/bin/env bash
#
# What operators watch, judged by Prometheus itself: promtool looks at a real worker's metrics and at deploy/prometheus, runs the rules' tests,
# and a real Prometheus with those rules scrapes the worker on loopback after a session ran. Then every expression of rules and dashboard is
# asked, and each metric and label in it must be there; what is misspelt must be found.
#
# It needs what tests/run.sh has built and started: COFFERDAM_TEST_AMQP, COFFERDAM_TEST_INSIDE and COFFERDAM_TEST_FORGE (the test forge's
# program; the worker's is looked for beside it, or in COFFERDAM_TEST_BIN). It takes less than a minute, and leaves nothing running.
# shellcheck disable=SC2317  # what a trap calls is not unreachable
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
watch=deploy/prometheus
# The package may start a server of its own; none is used here.
"$root/deploy/packages.sh" promtool=prometheus curl jq python3
scratch=$(mktemp -d /tmp/cd-watch.XXXXXX) worker=
# shellcheck source=tests/prometheus/world.sh
. tests/prometheus/world.sh
bin=${COFFERDAM_TEST_BIN:-$(dirname "$COFFERDAM_TEST_FORGE")}

must_fail() {
    local what=$1 words=$2
    shift 2
    if "$@" >"$scratch/refused" 2>&1; then die "not found: $what"; fi
    grep -q -- "$words" "$scratch/refused" || { cat "$scratch/refused"; die "found, but not told: $what"; }
    printf 'found, as it must be: %s\n' "$what"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

printf '== rules and their tests\n'
promtool check config "$watch/prometheus.yml"
promtool test rules "$watch/tests.yml"
# A threshold that is another is found by the tests.
cp "$watch"/*.yml "$scratch"
sed -i 's/cofferdam_amqp_connected == 0/cofferdam_amqp_connected == 2/' "$scratch/alerts.yml"
must_fail "an alert that does not fire" CofferdamBrokerAway promtool test rules "$scratch/tests.yml"

printf '== a worker and one session\n'
start_forge
start_worker "$bin/cofferdam"
task "$(cat /proc/sys/kernel/random/uuid)" >"$scratch/task.json"
timeout $((90 * ${COFFERDAM_TEST_SLOWNESS:-1})) "$bin/cofferdam" submit --follow --json "$scratch/task.json" >"$scratch/events"
jq -es 'last.data.outcome.reason == "published"' "$scratch/events" >/dev/null || { cat "$scratch/events"; die "the session was not published"; }

printf '== promtool looks at the scrape\n'
curl -fsS "http://$worker/metrics" >"$scratch/scrape"
promtool check metrics <"$scratch/scrape"
grep -c '^# TYPE cofferdam_' "$scratch/scrape"
# The linter would say so of a counter that is called like a gauge.
sed 's/cofferdam_takeovers_total/cofferdam_takeovers/' "$scratch/scrape" >"$scratch/misnamed"
lint() { promtool check metrics <"$1"; }
must_fail "a counter with the wrong name" cofferdam_takeovers lint "$scratch/misnamed"

printf '== a real Prometheus\n'
port=$(free_port)
mkdir "$scratch/prometheus"
cp "$watch/rules.yml" "$watch/alerts.yml" "$scratch/prometheus"
# A scrape may take as long as its interval: after one that took longer nothing is known until the next.
sed "s/127\.0\.0\.1:9464/$worker/; s/_interval: 15s/_interval: 3s/" "$watch/prometheus.yml" >"$scratch/prometheus/prometheus.yml"
prometheus --config.file="$scratch/prometheus/prometheus.yml" --storage.tsdb.path="$scratch/tsdb" --web.listen-address="127.0.0.1:$port" \
    >"$scratch/prometheus.log" 2>&1 &
pids+=($!)
url=http://127.0.0.1:$port
evaluated() {
    curl -fsS "$url/api/v1/rules" 2>/dev/null | jq -e '[.data.groups[].rules[].health] | length > 0 and all(. != "unknown")' >/dev/null &&
        curl -fsS "$url/api/v1/query?query=instance:cofferdam_slots_used:ratio" | jq -e '.data.result | length == 1' >/dev/null
}
until_true 30 "rules over a scrape" evaluated
# shellcheck disable=SC2120  # must_fail gives it arguments
check() { python3 tests/prometheus/check.py "$url" "$scratch/scrape" "$@"; }
check
# The runbook's commands are this program's.
while read -r word; do
    "$bin/cofferdam" help "$word" >"$scratch/answer" 2>&1 || die "the runbook says 'cofferdam $word', which is no command"
done < <(grep -o '`cofferdam [a-z]*' "$watch/RUNBOOK.md" | cut -d ' ' -f 2 | sort -u)

printf '== what is wrong must be found\n'
broken() { sed "$1" "$watch/$2" >"$scratch/broken-$2"; }
broken 's/cofferdam_mirrors{/cofferdam_mirors{/' dashboard.json
must_fail "a misspelt metric" 'no metric cofferdam_mirors' check --dashboard "$scratch/broken-dashboard.json"
broken 's/sum by (stage)/sum by (stages)/' dashboard.json
must_fail "a misspelt label" 'label stages' check --dashboard "$scratch/broken-dashboard.json"
broken 's/outcome!=/outcom!=/' dashboard.json
must_fail "a misspelt label to select by" 'no label outcom' check --dashboard "$scratch/broken-dashboard.json"
broken 's/outcome!=\\"success\\"/outcome!=\\"sucess\\"/' dashboard.json
must_fail "a misspelt value" 'sucess' check --dashboard "$scratch/broken-dashboard.json"
broken 's/sum(cofferdam_mirrors{/sum((cofferdam_mirrors{/' dashboard.json
must_fail "an expression that is none" 'parse error' check --dashboard "$scratch/broken-dashboard.json"
broken 's/^## CofferdamWorkKept$/## CofferdamWorkLost/' RUNBOOK.md
must_fail "an alert without a heading in the runbook" 'CofferdamWorkKept: the runbook' check --runbook "$scratch/broken-RUNBOOK.md"
broken 's/cofferdam_sessions_waiting/cofferdam_sessions_wating/' RUNBOOK.md
must_fail "a misspelt metric in the runbook" 'cofferdam_sessions_wating' check --runbook "$scratch/broken-RUNBOOK.md"
broken 's/alertname: CofferdamWorkKept/alertname: CofferdamWork/' tests.yml
must_fail "an alert without a test" 'CofferdamWorkKept: no test' check --tests "$scratch/broken-tests.yml"
printf 'all of deploy/prometheus is as a real worker and a real Prometheus have it\n'
