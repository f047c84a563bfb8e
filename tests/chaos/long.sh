#!/usr/bin/env bash
#
# One session that lasts longer than RabbitMQ lets a delivery stay unacknowledged (30 minutes), on a broker and a worker with their default
# settings: a turn that is silent for a quarter of the time, nothing at all for the rest, and a second turn. It must end published, by its first
# worker, in its first attempt, with one merge request.
#
#   tests/rabbitmq.sh start && COFFERDAM_TEST_AMQP=... tests/chaos/long.sh [MINUTES]     (default 40)
#
# Run by hand; nothing else runs it. It prints one line a minute, and a verdict at the end; the exit code says the same. Its log belongs
# outside of the repository. It works on copies of the programs, so that they may be built anew meanwhile, and removes all that it started.
#
# COFFERDAM_TEST_AMQP     the broker
# COFFERDAM_TEST_INSIDE   the static `inside` (default: where sandbox-images/static.sh puts it)
# PROGRAMS                the directory of cofferdam and test-forge (default target/debug)
# shellcheck disable=SC2317  # what a trap calls is not unreachable
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
minutes=${1:-40}
[[ $minutes =~ ^[0-9]{1,3}$ ]] && [ "$minutes" -gt 0 ] || { printf 'usage: tests/chaos/long.sh [MINUTES]\n' >&2; exit 2; }
amqp=${COFFERDAM_TEST_AMQP:?is not set: tests/rabbitmq.sh start prints it}
inside=${COFFERDAM_TEST_INSIDE:-$root/target/static/x86_64-unknown-linux-gnu/release/inside}
programs=${PROGRAMS:-$root/target/debug}
scratch=$(mktemp -d /tmp/cdl-XXXXXX)
name=${scratch##*/}
prefix=long-$(cat /proc/sys/kernel/random/uuid)
forge_pid='' worker_pid='' follower_pid=''

say() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() {
    say "FAILED: $*"
    exit 1
}

end_process() {
    [ -n "$1" ] || return 0
    kill -TERM "$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
}

sandboxes() {
    timeout 15 docker ps -a --filter label=dev.cofferdam.worker --format '{{.ID}} {{.Label "dev.cofferdam.worker"}}' |
        while read -r id label; do case $label in ("$name"-*) echo "$id" ;; esac; done
}

clean_up() {
    local code=$? left
    trap '' INT TERM HUP
    end_process "$follower_pid"
    # Twice: the second one does not wait for the session.
    [ -z "$worker_pid" ] || kill -TERM "$worker_pid" 2>/dev/null || true
    end_process "$worker_pid"
    left=$(sandboxes) || left=
    # shellcheck disable=SC2086  # one argument for each container
    [ -z "$left" ] || timeout 30 docker rm -f $left >/dev/null 2>&1 || true
    end_process "$forge_pid"
    [ "$code" -eq 0 ] || tail -n 40 "$scratch/worker.log" || true
    rm -rf "$scratch"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# What the broker holds for this installation: queue, ready, unacknowledged, consumers.
queues() {
    "$root/tests/rabbitmq.sh" ctl --quiet list_queues --vhost / name messages_ready messages_unacknowledged consumers 2>/dev/null |
        grep -F "$prefix." || true
}

cp "$programs/cofferdam" "$programs/test-forge" "$inside" "$scratch/"
"$scratch/test-forge" --seed "$root/tests/support/seeds/demo.toml" --data "$scratch/forge" --ready-file "$scratch/ready" \
    --max-lifetime $((minutes * 60 + 1200)) --parent-pid $$ </dev/null >"$scratch/forge.log" 2>&1 &
forge_pid=$!
for _ in $(seq 100); do [ -s "$scratch/ready" ] && break; sleep 0.1; done
forge=$(jq -r .url "$scratch/ready")

# The queue's settings are the defaults; only the limits of a silent agent are raised.
cat >"$scratch/config.toml" <<TOML
worker = "$name"
state_dir = "$scratch/state"
default_agent = "scripted"
[queue]
url = "$amqp"
prefix = "$prefix"
[session]
turn_s = $((minutes * 60 + 600))
idle_s = $((minutes * 60 + 600))
session_s = $((minutes * 60 + 900))
idle_timeout_s = $((minutes * 60 + 600))
[sandbox]
inside = "$scratch/inside"
[forge]
allow_http = true
[admin]
listen = "127.0.0.1:0"
[agents.scripted]
image = "cofferdam/sandbox-scripted:test"
command = ["scripted-agent", "acp"]
co_author = "Scripted Agent <scripted@agents.example>"
TOML
unset "${!COFFERDAM__@}"
export COFFERDAM_TOKEN_LAB=test-gitlab-api
COFFERDAM_LOG=info,lapin=off "$scratch/cofferdam" --config "$scratch/config.toml" run </dev/null >/dev/null 2>"$scratch/worker.log" &
worker_pid=$!
admin=
for _ in $(seq 300); do
    admin=$(jq -r 'select(.message == "admin address").address' "$scratch/worker.log" 2>/dev/null | head -n 1) || true
    [ -n "$admin" ] && curl -sf --max-time 5 -o /dev/null "http://$admin/readyz" && break
    sleep 0.1
done
[ -n "$admin" ] || fail "the worker did not start"

# Work, a long silence, the end of a turn.
silence=$((minutes * 15 * 1000))
session=$(cat /proc/sys/kernel/random/uuid)
jq -n --arg session "$session" --arg url "$forge/gitlab" --arg silence "$silence" --argjson idle $((minutes * 60 + 600)) '{
    version: 1, session: $session, idle_timeout_s: $idle,
    prompt: "Work for long.\n!write one.txt 1\n!commit . One\n!shell git push -q\n!sleep \($silence)\n!say done",
    projects: [{connection: "lab", path: "platform/tools/greeter"}],
    connections: {lab: {forge: "gitlab", url: $url, credential: {env: "COFFERDAM_TOKEN_LAB"}}}}' >"$scratch/task.json"
# Then nobody says anything, until this is asked.
second=$'And once more.\n!write two.txt 2\n!commit . Two\n!say done again'
asked=false ended=false
began=$SECONDS
COFFERDAM_LOG=error,lapin=off "$scratch/cofferdam" --config "$scratch/config.toml" submit --follow --json "$scratch/task.json" \
    </dev/null >"$scratch/events" 2>"$scratch/follower.log" &
follower_pid=$!
say "$("$scratch/cofferdam" --version): session $session for $minutes minutes, at $scratch"

deadline=$((began + minutes * 60 + 600))
next=$SECONDS
unacked_most=0
while ! grep -q '"event":"finished"' "$scratch/events"; do
    [ "$SECONDS" -lt "$deadline" ] || fail "the session did not end"
    kill -0 "$worker_pid" 2>/dev/null || fail "the worker ended"
    if ! $asked && [ $((SECONDS - began)) -ge $((minutes * 60 - 20)) ]; then
        asked=true
        grep -q '"event":"change_request_opened"' "$scratch/events" || fail "the first turn was not published"
        say "$("$scratch/cofferdam" --config "$scratch/config.toml" prompt "$session" "$second" 2>&1)"
    fi
    if ! $ended && grep -q '"event":"change_request_updated"' "$scratch/events"; then
        ended=true
        say "$("$scratch/cofferdam" --config "$scratch/config.toml" end "$session" 2>&1)"
    fi
    if [ "$SECONDS" -ge "$next" ]; then
        next=$((SECONDS + 60))
        listed=$(queues)
        unacked=$(awk '{s += $3} END {print s + 0}' <<<"$listed")
        # A ticket is looked at once in 30 s, for a moment.
        [ "$unacked" -le "$unacked_most" ] || unacked_most=$unacked
        rss=$(awk '/VmRSS/ {print $2}' "/proc/$worker_pid/status")
        say "$(((SECONDS - began) / 60)) min: worker $rss KiB, $(find "/proc/$worker_pid/fd" -mindepth 1 2>/dev/null | wc -l) descriptors;" \
            "$(awk '{r += $2} END {print r + 0}' <<<"$listed") messages ready, $unacked unacknowledged; sandboxes: $(sandboxes | wc -l)"
    fi
    sleep 1
done
took=$((SECONDS - began))
wait "$follower_pid" || fail "submit --follow ended with $?: $(tail -n 1 "$scratch/follower.log")"
follower_pid=
jq -es '
    (map(select(.data.event == "claimed")) | length == 1)
    and (map(.data.attempt) | unique == [1])
    and (map(select(.data.event == "finished")) | length == 1)
    and (map(select(.data.event == "turn_ended")) | length == 2)
    and (last.data.outcome.reason == "published")' "$scratch/events" >/dev/null || { cat "$scratch/events"; fail "not two turns in one attempt, published"; }
requests=$(curl -s --max-time 20 "$forge/_test/state" | jq '.gitlab["platform/tools/greeter"].change_requests | length')
[ "$requests" -eq 1 ] || fail "$requests merge requests"
[ "$took" -ge $((minutes * 60 - 60)) ] || fail "it took only $took s"
! grep -q 'lost the broker' "$scratch/worker.log" || fail "the broker closed a connection"
for _ in $(seq 100); do
    left=$(queues | awk '$2 + $3 > 0')
    [ -z "$left" ] && break
    sleep 1
done
[ -z "$left" ] || fail "left on the broker: $left"
# What waits for the next session goes with its worker.
end_process "$worker_pid"
worker_pid=
[ "$(sandboxes | wc -l)" -eq 0 ] || fail "a sandbox is left"
say "passed: $took s in one attempt by one worker, published once; at most $unacked_most unacknowledged messages at any look"
