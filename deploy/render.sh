#!/usr/bin/env bash
#
# Makes what is made from other files: the chart's copy of the rules in deploy/prometheus; from the chart the kustomize bases
# deploy/kustomize/{deployment,scaledjob,pods}/cofferdam.yaml; and from the worker's own profile of system calls the one for a cluster's nodes
# (deploy/seccomp/sandbox.json). Do not change those by hand.
#
#   deploy/render.sh [DIRECTORY]      (default: deploy; tests/deploy.sh renders into another one and compares)
#
# HELM   the helm to run (default helm). jq is needed, too.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here}

mkdir -p "$out/helm/cofferdam/files/rules"
for rules in rules alerts; do
    [ ! -e "$here/prometheus/$rules.yml" ] || cp "$here/prometheus/$rules.yml" "$out/helm/cofferdam/files/rules/"
done

# base NAME FORM VALUES...
base() {
    local name=$1 form=$2 values=()
    shift 2
    for file in "$@"; do values+=(--values "$here/kustomize/$file"); done
    mkdir -p "$out/kustomize/$name"
    {
        printf '# Rendered from deploy/helm/cofferdam by deploy/render.sh.\n'
        "${HELM:-helm}" template cofferdam "$here/helm/cofferdam" --namespace cofferdam "${values[@]}" --set "form=$form" |
            sed -e '/^# Source:/d' -e '/helm\.sh\/chart:/d' -e 's/managed-by: Helm/managed-by: kustomize/'
    } >"$out/kustomize/$name/cofferdam.yaml"
}
base deployment deployment values.yaml
base scaledjob scaledjob values.yaml
base pods deployment values.yaml values-pods.yaml

# Docker's form has words that only Docker knows: it chooses rules by the machine's processor. A node's runtime takes the form of the OCI: processors
# by name, and a call that a processor does not have is passed over.
mkdir -p "$out/seccomp"
jq '{defaultAction, defaultErrnoRet, architectures: [.archMap[].architecture], syscalls: [.syscalls[] | del(.includes)]}' \
    "$here/../src/sandbox/docker/seccomp.json" >"$out/seccomp/sandbox.json"
