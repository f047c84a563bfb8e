#!/usr/bin/env bash
#
# One real session in the images of deploy/image.sh: the worker's container and the rootless engine's, with the rights and the volumes that the
# chart and deploy/compose.yaml give them, over the real RabbitMQ and the test forge. And then the worker's container is stopped.
#
#   tests/deploy/session.sh COFFERDAM TEST_FORGE
#
# COFFERDAM_TEST_AMQP   the broker
# TAG                   the tag of the images
set -euo pipefail

cofferdam=$1 program=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=cofferdam-deploy-$$
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cofferdam-deploy.XXXXXX")
forge=

finish() {
    local code=$?
    trap '' INT TERM HUP
    if [ "$code" -ne 0 ]; then
        printf '%s\n' 'the worker said:'
        docker logs --tail 30 "$name-worker" 2>&1 || true
        printf '%s\n' 'the engine said:'
        docker logs --tail 10 "$name-engine" 2>&1 || true
    fi
    [ -z "$forge" ] || kill "$forge" 2>/dev/null || true
    docker rm --force "$name-worker" "$name-engine" >/dev/null 2>&1 || true
    docker volume rm --force "$name-state" "$name-engine" >/dev/null 2>&1 || true
    rm -rf "$scratch"
    exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# By how much longer everything may take on a machine that compiles or tests beside this; as in tests/path/harness.rs.
slowness=${COFFERDAM_TEST_SLOWNESS:-1}

# wait_for SECONDS COMMAND...
wait_for() {
    local deadline=$((SECONDS + $1 * slowness))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { printf 'FAILED: waited in vain for: %s\n' "$*"; return 1; }
        sleep 0.3
    done
}

"$program" --seed tests/support/seeds/demo.toml --data "$scratch/forge" --ready-file "$scratch/ready" --max-lifetime $((300 * slowness)) \
    --parent-pid $$ >/dev/null 2>&1 &
forge=$!
wait_for 30 test -s "$scratch/ready"
url=$(jq -r .url "$scratch/ready")

cat >"$scratch/config.toml" <<EOF
default_agent = "scripted"
[sandbox]
workspace_bytes = 268435456
warm = 1
[forge]
allow_http = true
[agents.scripted]
image = "cofferdam/sandbox-scripted:test"
command = ["scripted-agent", "acp"]
co_author = "Scripted Agent <scripted@agents.example>"
EOF
chmod 0644 "$scratch/config.toml"

# The worker's volume, with the directories that the chart's init container makes, of which the engine gets no more than in a pod.
docker volume create "$name-state" >/dev/null
docker run --rm --network none --read-only --cap-drop ALL --volume "$name-state:/var/lib/cofferdam" --entrypoint /usr/bin/install \
    "cofferdam/worker:$TAG" -d -m 0700 /var/lib/cofferdam/state /var/lib/cofferdam/state/sandboxes /var/lib/cofferdam/state/inside /var/lib/cofferdam/engine
volume=$(docker volume inspect --format '{{.Mountpoint}}' "$name-state")

# What deploy/engine/Dockerfile says that it needs. No network: nothing is pulled here.
docker run --detach --name "$name-engine" --network none --read-only --cap-drop ALL --cap-add SETUID --cap-add SETGID \
    --security-opt seccomp=unconfined --security-opt systempaths=unconfined --memory 4g --pids-limit 8192 \
    --tmpfs /tmp:mode=1777 --tmpfs /run/engine:uid=1000,gid=1000,mode=0700,exec --tmpfs /home/engine:uid=1000,gid=1000,mode=0700 \
    --volume "$volume/engine:/var/lib/cofferdam/engine" --volume "$volume/state/sandboxes:/var/lib/cofferdam/state/sandboxes" \
    --volume "$volume/state/inside:/var/lib/cofferdam/state/inside:ro" --volume "$name-engine:/var/lib/engine" "cofferdam/engine:$TAG" >/dev/null
wait_for 60 docker exec "$name-engine" docker version
docker save cofferdam/sandbox-scripted:test | docker exec --interactive "$name-engine" docker load >/dev/null
printf 'ok: the engine runs as user %s, with capabilities %s\n' "$(docker exec "$name-engine" id -u)" \
    "$(docker exec "$name-engine" sed -n 's/^CapBnd:\t//p' /proc/1/status)"

# The broker and the forge are on this machine's loopback.
settings=(--env "COFFERDAM__QUEUE__URL=$COFFERDAM_TEST_AMQP" --env "COFFERDAM__QUEUE__PREFIX=$name" --env COFFERDAM_TOKEN_LAB=test-gitlab-api
    --env COFFERDAM__STATE_DIR=/var/lib/cofferdam/state --env COFFERDAM__SANDBOX__DOCKER_SOCKET=/var/lib/cofferdam/engine/engine.sock
    --env COFFERDAM__ADMIN__LISTEN=127.0.0.1:0)
docker run --detach --name "$name-worker" --network host --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp:mode=1777 \
    --volume "$name-state:/var/lib/cofferdam" --volume "$scratch/config.toml:/etc/cofferdam/config.toml:ro" "${settings[@]}" \
    "cofferdam/worker:$TAG" >/dev/null
is_ready() { docker exec "$name-worker" cofferdam sessions --json | jq -e '.not_ready == []'; }
wait_for 60 is_ready
printf 'ok: the worker is ready, as user %s\n' "$(docker exec "$name-worker" id -u)"

jq -n --arg url "$url/gitlab" --arg session "$(cat /proc/sys/kernel/random/uuid)" '{version: 1, session: $session, prompt: "!write a.txt b",
    projects: [{connection: "lab", path: "platform/tools/greeter"}],
    connections: {lab: {forge: "gitlab", url: $url, credential: {env: "COFFERDAM_TOKEN_LAB"}}}}' >"$scratch/task.json"
COFFERDAM__QUEUE__URL=$COFFERDAM_TEST_AMQP COFFERDAM__QUEUE__PREFIX=$name \
    timeout $((120 * slowness)) "$cofferdam" submit --follow --json "$scratch/task.json" >"$scratch/events" || { tail -n 5 "$scratch/events"; exit 1; }
jq -es 'last.data | .event == "finished" and .outcome.reason == "published"' "$scratch/events" >/dev/null || { tail -n 3 "$scratch/events"; exit 1; }
printf 'ok: a session: %s\n' "$(jq -rs 'last.data.outcome.projects[0] | "\(.branch), \(.change_request.url // .change_request)"' "$scratch/events")"

seen=$(docker exec "$name-engine" find /var/lib/cofferdam -mindepth 1 -maxdepth 2 | sort | tr '\n' ' ')
expected='/var/lib/cofferdam/engine /var/lib/cofferdam/engine/engine.sock /var/lib/cofferdam/state /var/lib/cofferdam/state/inside /var/lib/cofferdam/state/sandboxes '
[ "$seen" = "$expected" ] || { printf 'FAILED: the engine sees of the worker: %s\n' "$seen"; exit 1; }
docker exec "$name-worker" test -d /var/lib/cofferdam/state/mirrors
if docker logs "$name-worker" 2>&1 | grep -F 'not shown to the sandbox'; then
    printf 'FAILED: a sandbox was not shown its objects\n'
    exit 1
fi
printf 'ok: the engine sees no mirror, no staging and no kept work, and its sandboxes their objects\n'

started=$SECONDS
docker stop --time $((60 * slowness)) "$name-worker" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$name-worker")
[ "$code" -eq 0 ] || { printf 'FAILED: the stopped worker ended with %d\n' "$code"; exit 1; }
left=$(docker exec "$name-engine" docker ps --all --quiet | wc -l)
[ "$left" -eq 0 ] || { printf 'FAILED: %d containers were left\n' "$left"; exit 1; }
printf 'ok: a stopped worker drained in %d s and left no container\n' $((SECONDS - started))
