#!/usr/bin/env bash
#
# One session from end to end on this machine: a task over a GitLab and a GitHub project becomes a merge request and a pull request.
#
#   deploy/demo.sh [--json] [--keep]
#
#   --json   print the session's events on standard output, one a line, and everything else on standard error
#   --keep   leave the test forge up for an hour, so that its pages can be looked at
#
# Real here: cofferdam, git, the Docker engine and the sealed container. Test doubles, from tests/support: both forges (one server on a
# loopback port) and the agent (it does what the lines of the prompt that begin with `!` say). The queue is in the process.
#
# It sets up all it needs: Docker and some packages from the distribution, the programs, the sandbox image. It exits with the
# session's exit code (`cofferdam --help`), and removes what it started, on failure and on Ctrl-C too; Docker, the packages and the
# images stay. It talks to no real forge and to no model, and needs no token.
#
# CARGO   the cargo to build with (default cargo)
# shellcheck disable=SC2317  # what a trap calls is not unreachable
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cargo=${CARGO:-cargo}
keep_seconds=3600
json=false keep=false
for argument in "$@"; do
    case $argument in
    --json) json=true ;;
    --keep) keep=true ;;
    -h | --help)
        sed -n '3,/^# CARGO/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *)
        printf 'usage: deploy/demo.sh [--json] [--keep]\n' >&2
        exit 2
        ;;
    esac
done

# What is for people: standard output, unless that belongs to the events.
if $json; then exec 3>&2; else exec 3>&1; fi
say() { printf '%s\n' "$*" >&3; }
head_line() { printf '\n== %s\n' "$*" >&3; }
die() {
    printf 'demo.sh: %s\n' "$*" >&2
    exit 70
}

scratch='' forge_pid='' session_pid='' worker='' kept=false

# TERM is sent to what is there; a pid of ours cannot have been given away before it was waited for.
end_process() {
    [ -n "$1" ] || return 0
    kill -TERM "$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
}

clean_up() {
    local code=$? left
    trap '' INT TERM HUP
    # A session that is told to stop removes its sandbox itself; the label, which begins with the
    # worker's name, finds what it could not remove.
    end_process "$session_pid"
    if [ -n "$worker" ]; then
        left=$(timeout 15 docker ps -a --filter label=dev.cofferdam.worker --format '{{.ID}} {{.Label "dev.cofferdam.worker"}}' 2>/dev/null |
            while read -r id label; do case $label in ("$worker"-*) echo "$id" ;; esac; done) || left=
        # shellcheck disable=SC2086  # one argument for each container
        [ -z "$left" ] || timeout 30 docker rm -f $left >/dev/null 2>&1 || true
    fi
    if ! $kept; then
        end_process "$forge_pid"
        [ -z "$scratch" ] || rm -rf "$scratch"
    fi
    exit "$code"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

prepare_docker() {
    if command -v docker >/dev/null && timeout 15 docker info >/dev/null 2>&1; then
        return 0
    fi
    head_line "Docker"
    if [ "$(id -u)" -eq 0 ]; then
        "$root/deploy/docker.sh" start >&3 2>&3
    elif command -v sudo >/dev/null; then
        say "starting Docker needs root: sudo deploy/docker.sh"
        sudo "$root/deploy/docker.sh" start >&3 2>&3
    else
        die "no Docker daemon answers, and starting one needs root: run deploy/docker.sh as root"
    fi
    timeout 15 docker info >/dev/null 2>&1 ||
        die "Docker runs, but $(id -un) may not use it: add the user to the group docker and log in again, or run this as root"
}

prepare() {
    "$root/deploy/packages.sh" git curl jq cc=gcc,libc6-dev >&3 2>&3
    command -v "$cargo" >/dev/null || die "there is no cargo here: a Rust toolchain is the one thing that this script does not install"
    prepare_docker
    head_line "Build (minutes the first time, seconds after that)"
    cd "$root"
    "$cargo" build --locked --workspace --bins >&3 2>&3
    inside=$("$root/sandbox-images/static.sh" 2>&3)
    "$root/tests/support/image/build.sh" >&3 2>&3
    programs=$("$cargo" metadata --locked --no-deps --format-version 1 | jq -r .target_directory)/debug
}

start_forge() {
    local options=(--seed "$root/tests/support/seeds/demo.toml" --data "$scratch/forge" --ready-file "$scratch/ready")
    local deadline=$((SECONDS + 20))
    # With --keep it outlives this script and what this script runs in; otherwise it ends with this script, even if that is killed.
    if $keep; then
        setsid "$programs/test-forge" "${options[@]}" --max-lifetime "$keep_seconds" </dev/null >"$scratch/forge.log" 2>&1 3>&- &
    else
        "$programs/test-forge" "${options[@]}" --max-lifetime 600 --parent-pid $$ </dev/null >"$scratch/forge.log" 2>&1 3>&- &
    fi
    # A background job of a script leads no process group, so setsid does not fork and this is the forge itself.
    forge_pid=$!
    until [ -s "$scratch/ready" ]; do
        if ! kill -0 "$forge_pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            cat "$scratch/forge.log" >&2
            die "the test forge did not start"
        fi
        sleep 0.05
    done
    gitlab=$(jq -r .gitlab "$scratch/ready")
    github=$(jq -r .github "$scratch/ready")
    forge_page=$(jq -r .url "$scratch/ready")
}

run_session() {
    local code=0 options=()
    ! $json || options=(--json)
    jq --rawfile prompt "$root/deploy/demo/prompt.txt" --arg session "$(cat /proc/sys/kernel/random/uuid)" \
        --arg gitlab "$gitlab" --arg github "$github" \
        '.prompt = $prompt | .session = $session | .connections.lab.url = $gitlab | .connections.hub.url = $github' \
        "$root/deploy/demo/task.json" >"$scratch/task.json"
    # Settings that the caller's environment may hold for a real worker are not this one's.
    unset "${!COFFERDAM__@}"
    export COFFERDAM__STATE_DIR=$scratch/state COFFERDAM__WORKER=$worker COFFERDAM__SANDBOX__INSIDE=$inside
    # Made-up tokens, which only the test forge knows.
    export COFFERDAM_TOKEN_DEMO_GITLAB=test-gitlab-api COFFERDAM_TOKEN_DEMO_GITHUB=test-github-repo
    # In the background, so that a signal to this script is heard at once.
    "$programs/cofferdam" --config "$root/deploy/demo/config.toml" exec ${options[@]+"${options[@]}"} "$scratch/task.json" 3>&- &
    session_pid=$!
    wait "$session_pid" || code=$?
    session_pid=
    return "$code"
}

ask_gitlab() { curl -fsS --noproxy '*' --max-time 10 -H "PRIVATE-TOKEN: $COFFERDAM_TOKEN_DEMO_GITLAB" "$gitlab/api/v4/$1"; }
ask_github() { curl -fsS --noproxy '*' --max-time 10 -H "Authorization: Bearer $COFFERDAM_TOKEN_DEMO_GITHUB" "$github/api/v3/$1"; }

show_change_request() {
    local word=$1 text=$2 commits=$3
    head_line "The $word, as the forge has it"
    jq -r '"\(.url)\n\(.from) -> \(.into)\n\n\(.title)\n\n\(.body)"' <<<"$text" | indent
    say
    say "  its commits:"
    jq -r '.[] | "\(.id[:12]) by \(.author)\n\(.message)"' <<<"$commits" | indent
}

indent() { sed 's/^/  | /' >&3; }

show_result() {
    local greeter=projects/platform%2Ftools%2Fgreeter merge_request pull_request
    merge_request=$(ask_gitlab "$greeter/merge_requests?state=opened" | jq '.[0] | {url: .web_url, number: .iid, from: .source_branch,
        into: .target_branch, title, body: .description}')
    pull_request=$(ask_github "repos/acme/website/pulls?state=open" | jq '.[0] | {url: .html_url, number, from: .head.ref,
        into: .base.ref, title, body}')
    merge_request_url=$(jq -r .url <<<"$merge_request")
    pull_request_url=$(jq -r .url <<<"$pull_request")
    $keep || {
        show_change_request "merge request" "$merge_request" "$(ask_gitlab \
            "$greeter/merge_requests/$(jq .number <<<"$merge_request")/commits" |
            jq '[.[] | {id, author: "\(.author_name) <\(.author_email)>", message}]')"
        show_change_request "pull request" "$pull_request" "$(ask_github \
            "repos/acme/website/pulls/$(jq .number <<<"$pull_request")/commits" |
            jq '[.[] | {id: .sha, author: "\(.commit.author.name) <\(.commit.author.email)>", message: .commit.message}]')"
    }
    head_line "Done"
    say "merge request: $merge_request_url"
    say "pull request:  $pull_request_url"
    if $keep; then
        kept=true
        # The directory goes when the forge has ended.
        # shellcheck disable=SC2016  # expanded by the inner shell
        setsid bash -c 'tail --pid="$1" -f /dev/null; rm -rf "$2"' - "$forge_pid" "$scratch" </dev/null >/dev/null 2>&1 3>&- &
        say "Open these in a browser on this machine, or $forge_page for all that the test forge holds."
        say "It ends by itself in $((keep_seconds / 60)) minutes; to stop it now: kill $forge_pid"
    else
        say "The test forge is being removed, so these addresses end here; deploy/demo.sh --keep leaves their pages up."
    fi
    say "Both forges and the agent were test doubles; the container, git and cofferdam were real."
}

prepare
# Not under TMPDIR: the engine must see it under the same path, and a socket's path has to be short.
scratch=$(mktemp -d /tmp/cofferdam-demo.XXXXXX)
worker=demo-${scratch##*.}
started=$SECONDS
head_line "A session over platform/tools/greeter (test GitLab) and acme/website (test GitHub), with the scripted agent"
say "The request: $(sed '/^$/,$d' "$root/deploy/demo/prompt.txt" | tr '\n' ' ')"
say
start_forge
code=0
run_session || code=$?
if [ "$code" -eq 0 ]; then
    show_result
else
    say "the session ended with exit code $code"
fi
say "This took $((SECONDS - started)) s after the builds."
exit "$code"
