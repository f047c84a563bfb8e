#!/usr/bin/env bash
#
# Lets strangers' clients judge the test forge (python-gitlab, gitbeaker, PyGithub, githubkit, octokit), sealed tokens (pyrage, age) and the
# AsyncAPI document (the parser of the AsyncAPI project). They are installed from their registries by pip and npm as these are set up on the machine, into a directory that is removed at the end.
#
#   tests/judges.sh
#
# Prints a line for each check (`ok CLIENT: what`, `FAILED CLIENT: what`), and exits with 1 if any failed or a client could not be had.
# The programs are in tests/judges/. They talk to the test forge on loopback and to nothing else.
#
# CARGO                 the cargo to run (default cargo)
# COFFERDAM_TEST_FORGE  a test-forge that is built already
# COFFERDAM_TEST_BIN    the directory of a cofferdam that is built already
# JUDGES_TIMEOUT        seconds that one step may take (default 300, times COFFERDAM_TEST_SLOWNESS where that is set)
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 70
limit=${JUDGES_TIMEOUT:-$((300 * ${COFFERDAM_TEST_SLOWNESS:-1}))}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cofferdam-judges.XXXXXX")
forge=
child=
failed=0

finish() {
    local code=$?
    trap '' INT TERM HUP
    [ -z "$child" ] || kill "$child" 2>/dev/null
    if [ -n "$forge" ]; then
        kill "$forge" 2>/dev/null
        wait "$forge" 2>/dev/null
    fi
    rm -rf "$scratch"
    exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# bounded COMMAND...: with a limit of time, after which nothing of it is left.
bounded() {
    local code=0
    # In the background, so that a signal to this script is heard at once.
    timeout --kill-after=10 "$limit" "$@" &
    child=$!
    wait "$child" || code=$?
    child=
    return "$code"
}

# quiet NAME COMMAND...: shows what a command said only if it failed.
quiet() {
    local name=$1
    shift
    if ! bounded "$@" >"$scratch/log" 2>&1; then
        printf 'FAILED %s\n' "$name"
        tail -n 30 "$scratch/log"
        return 1
    fi
}

python_clients() {
    quiet 'python: make a virtual environment' python3 -m venv "$scratch/python" || return
    quiet 'python: install clients' "$scratch/python/bin/pip" install --quiet --disable-pip-version-check \
        python-gitlab==8.6.0 PyGithub==2.10 githubkit==0.16.1 hishel==1.3.0 \
        'githubkit-schemas[2022-11-28]==26.10.21' pyrage==1.4.0
}

node_clients() {
    mkdir "$scratch/node" || return
    printf '{"private": true, "type": "module"}\n' >"$scratch/node/package.json"
    # Modules are looked up from where the program lies.
    cp tests/judges/*.mjs "$scratch/node/" || return
    quiet 'node: install clients' npm install --prefix "$scratch/node" --no-audit --no-fund --ignore-scripts --loglevel=error \
        @gitbeaker/rest@43.8.0 octokit@5.0.5
}

asyncapi_parser() {
    mkdir "$scratch/asyncapi" || return
    printf '{"private": true, "type": "module"}\n' >"$scratch/asyncapi/package.json"
    cp tests/judges/asyncapi.mjs "$scratch/asyncapi/" || return
    quiet 'node: install the parser of AsyncAPI' npm install --prefix "$scratch/asyncapi" --no-audit --no-fund --ignore-scripts \
        --loglevel=error @asyncapi/parser@3.6.6
}

# The program: one that is there already, for a build beside running tests would take theirs away.
built() {
    if [ -n "${COFFERDAM_TEST_BIN:-}" ]; then
        printf '%s/cofferdam\n' "$COFFERDAM_TEST_BIN"
        return
    fi
    "${CARGO:-cargo}" build --quiet --locked --workspace --bin cofferdam >&2 || return
    "${CARGO:-cargo}" metadata --locked --no-deps --format-version 1 | jq -r '.target_directory + "/debug/cofferdam"'
}

start_forge() {
    local program=${COFFERDAM_TEST_FORGE:-}
    if [ -z "$program" ]; then
        "${CARGO:-cargo}" build --quiet --locked --workspace --bin test-forge || return
        program=$("${CARGO:-cargo}" metadata --locked --no-deps --format-version 1 | jq -r .target_directory)/debug/test-forge
    fi
    cat tests/support/seeds/demo.toml tests/support/seeds/activity.toml >"$scratch/seed.toml" || return
    "$program" --seed "$scratch/seed.toml" --data "$scratch/data" --ready-file "$scratch/ready" --max-lifetime 3000 \
        --parent-pid $$ >/dev/null 2>"$scratch/forge.log" &
    forge=$!
    local tries
    for tries in {1..600}; do
        [ ! -e "$scratch/ready" ] || break
        if [ "$tries" -eq 600 ] || ! kill -0 "$forge" 2>/dev/null; then
            cat "$scratch/forge.log"
            printf 'FAILED the test forge did not start\n'
            return 1
        fi
        sleep 0.1
    done
    gitlab=$(jq -r .gitlab "$scratch/ready") && github=$(jq -r .github "$scratch/ready") || return
    local url
    url=$(jq -r .url "$scratch/ready")
    # Branches that nobody has opened a change request for yet.
    local one side branch
    for one in gitlab:for-judges gitlab:for-gitbeaker github:for-judges github:for-githubkit; do
        side=${one%%:*} branch=${one#*:}
        local project=platform/shop
        [ "$side" = gitlab ] || project=acme/shop
        jq -n --arg forge "$side" --arg project "$project" --arg branch "$branch" \
            '{forge: $forge, project: $project, branch: $branch, files: {($branch): "x\n"}}' |
            curl --silent --show-error --fail --noproxy '*' --max-time 20 -H 'Content-Type: application/json' --data @- "$url/_test/commit" \
                >/dev/null || return
    done
}

# judge COMMAND...: one client; it prints its own lines.
judge() {
    if ! bounded env NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 "$@" 2>&1; then
        failed=$((failed + 1))
    fi
}

start_forge || exit 1
if python_clients; then
    judge "$scratch/python/bin/python" -B tests/judges/python_gitlab.py "$gitlab"
    judge "$scratch/python/bin/python" -B tests/judges/pygithub.py "$github"
    judge "$scratch/python/bin/python" -B tests/judges/githubkit_models.py "$github"
    # Other implementations of age, on what the worker opens and seals.
    if cofferdam=$(built); then
        judge tests/judges/seal.sh "$cofferdam" "$scratch/python/bin/python"
    else
        failed=$((failed + 1))
    fi
else
    failed=$((failed + 1))
fi
if node_clients; then
    judge node "$scratch/node/gitbeaker.mjs" "$gitlab"
    judge node "$scratch/node/octokit.mjs" "$github"
else
    failed=$((failed + 1))
fi
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    printf 'SKIPPED @asyncapi/parser: there is no node here, the AsyncAPI document was not judged\n'
elif asyncapi_parser && cofferdam=$(built); then
    "$cofferdam" schema asyncapi >"$scratch/asyncapi.json" || failed=$((failed + 1))
    judge node "$scratch/asyncapi/asyncapi.mjs" "$scratch/asyncapi.json"
else
    failed=$((failed + 1))
fi
if [ "$failed" -ne 0 ]; then
    printf '%d of the clients FAILED\n' "$failed"
    exit 1
fi
printf 'every client is content, after %d s\n' "$SECONDS"
