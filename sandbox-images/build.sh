#!/usr/bin/env bash
#
# Builds the sandbox images on this machine.
#
#   sandbox-images/build.sh [NAME...]     base (default), one of the agents, or all of those that a registry has
#   sandbox-images/build.sh tag NAME      print the tag of that image
#   sandbox-images/build.sh list          print the agents that `all` builds
#
# base             cofferdam/sandbox-base:12            Debian 12, git, an account `agent` with uid 1000
# node             cofferdam/sandbox-node:VERSION       base and Node.js; most agents are built on it
# opencode, ...    cofferdam/sandbox-NAME:VERSION       base or node, and the agent from the npm registry, pinned by NAME/package-lock.json
# kiro             cofferdam/sandbox-kiro:KIRO_VERSION  base and the vendor's programs, from the directory KIRO_BIN; see kiro/README.md
#
# An image whose inputs have not changed is left as it is; FORCE=1 builds it all the same. Where the Debian image cannot be
# pulled, an equal one is bootstrapped from the distribution's packages, with the apt sources that this machine uses already.
# It never pushes an image anywhere.
#
# BASE_IMAGE       what to build the base from (default debian:12-slim; it is pulled unless present)
# PULL_TIMEOUT     seconds to try that pull (default 20)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
base_image=${BASE_IMAGE:-debian:12-slim}
pull_timeout=${PULL_TIMEOUT:-20}
bootstrapped=cofferdam/debian:12
base_tag=cofferdam/sandbox-base:12
label=io.cofferdam.inputs
agents=(opencode gemini codex claude qwen copilot)

say() { printf 'build.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

content_hash() { cat "$@" | sha256sum | cut -d' ' -f1; }

image_label() { docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null || true; }

# is_current IMAGE HASH
is_current() {
    [ "${FORCE:-}" != 1 ] && [ "$(image_label "$1")" = "$2" ] || return 1
    say "$1 is current"
}

is_present() { docker image inspect "$1" >/dev/null 2>&1; }

# The apt sources and the acquire options (a proxy, say) of this machine are taken over, so that no host is named here.
bootstrap() {
    local suite sources=()
    is_present "$bootstrapped" && return 0
    "$here/../deploy/packages.sh" mmdebstrap 9>&-
    # shellcheck disable=SC1091
    suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-bookworm}")
    # The distribution's own archive if it can be told by its file's name; a third party's list may hold no minimal system.
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
        [ ! -s "$file" ] || sources+=("$file")
    done
    if [ ${#sources[@]} -eq 0 ]; then
        mapfile -t sources < <(grep -lsw -- "$suite" /etc/apt/sources.list.d/*.{list,sources})
    fi
    [ ${#sources[@]} -gt 0 ] || die "no apt sources found to bootstrap from"
    apt-config dump Acquire >"$scratch/acquire.conf"
    say "bootstrapping $bootstrapped from $suite packages"
    mmdebstrap --quiet --variant=minbase --include=git,ca-certificates --aptopt="$scratch/acquire.conf" \
        "$suite" "$scratch/root.tar" "${sources[@]}" >&2 || die "could not bootstrap a base image"
    docker import "$scratch/root.tar" "$bootstrapped" >/dev/null
    rm -f "$scratch/root.tar"
}

build_base() {
    local hash from=$base_image network=()
    hash=$(content_hash "$here/base/Dockerfile" <(printf %s "$base_image"))
    is_current "$base_tag" "$hash" && return 0
    if ! is_present "$from" && ! timeout "$pull_timeout" docker pull --quiet "$from" >/dev/null 2>&1; then
        say "$from cannot be pulled within $pull_timeout s"
        bootstrap
        from=$bootstrapped network=(--network none)
    fi
    say "building $base_tag from $from"
    # Classic and BuildKit builders both take these; the context is only the Dockerfile's directory.
    docker build --quiet ${network[@]+"${network[@]}"} --build-arg "BASE=$from" --label "$label=$hash" --tag "$base_tag" "$here/base" >/dev/null
}

# The version that NAME/package.json names; kiro's is named by whoever has it.
version_of() {
    case $1 in
    kiro) printf '%s' "${KIRO_VERSION:-}" ;;
    *) sed -n 's/^ *"[^"]*": "\([0-9][^"]*\)"$/\1/p' "$here/$1/package.json" ;;
    esac
}

tag_of() {
    local version
    [ "$1" != base ] || { printf '%s\n' "$base_tag" && return; }
    [ -f "$here/$1/Dockerfile" ] || die "there is no image $1: base, node, ${agents[*]}, kiro"
    version=$(version_of "$1")
    [ -n "$version" ] || die "there is no version for $1: $here/$1/package.json names it, or KIRO_VERSION"
    printf 'cofferdam/sandbox-%s:%s\n' "$1" "$version"
}

# build_npm NAME FROM: the packages of NAME/package-lock.json, which holds a digest for each, in an image on FROM. No script of a
# package is run, and the build itself has no network.
build_npm() {
    local name=$1 from=$2 tag hash context inputs
    tag=$(tag_of "$name")
    inputs=("$here/$name/Dockerfile" "$here/$name/package.json" "$here/$name/package-lock.json")
    [ ! -f "$here/$name/.dockerignore" ] || inputs+=("$here/$name/.dockerignore")
    hash=$(content_hash "${inputs[@]}" <(image_label "$from"))
    is_current "$tag" "$hash" && return 0
    [ "$(uname -sm)" = "Linux x86_64" ] || die "$name is pinned for x86-64 Linux only, not for $(uname -sm)"
    "$here/../deploy/packages.sh" npm 9>&-
    context=$scratch/$name
    mkdir "$context"
    cp "${inputs[@]}" "$context/"
    say "fetching the packages of $name"
    # Its complaints are kept for when it fails: it also complains of a Node.js that is older than the image's.
    (cd "$context" && npm ci --ignore-scripts --no-audit --no-fund --omit=dev >"$scratch/npm.log" 2>&1) || {
        tail -n 20 "$scratch/npm.log" >&2
        die "npm could not fetch what $name/package-lock.json pins"
    }
    # An optional package that is not what was pinned is left out without a word, and most agents' programs are in one.
    sed -n 's/^    "\(node_modules\/[^"]*\)": {$/\1/p' "$context/package-lock.json" >"$scratch/pinned"
    while IFS= read -r package; do
        [ -e "$context/$package/package.json" ] || die "npm left out $package: it could not be fetched, or is not what was pinned"
    done <"$scratch/pinned"
    say "building $tag"
    docker build --quiet --network none --build-arg "BASE=$from" --label "$label=$hash" --tag "$tag" "$context" >/dev/null
    rm -rf "$context"
    # What the stages before the last leave behind has no name, only this label.
    docker image prune --force --filter label=io.cofferdam.stage >/dev/null
}

build_kiro() {
    local tag hash
    tag=$(tag_of kiro)
    [ -x "${KIRO_BIN:-}/kiro-cli" ] || die "no registry has kiro-cli: name the directory with the vendor's programs by KIRO_BIN, see $here/kiro/README.md"
    hash=$(content_hash "$here/kiro/Dockerfile" "$KIRO_BIN"/* <(image_label "$base_tag"))
    is_current "$tag" "$hash" && return 0
    mkdir -p "$scratch/kiro/bin"
    cp "$here/kiro/Dockerfile" "$scratch/kiro/"
    install -m 0755 "$KIRO_BIN"/* "$scratch/kiro/bin/"
    say "building $tag"
    docker build --quiet --network none --build-arg "BASE=$base_tag" --label "$label=$hash" --tag "$tag" "$scratch/kiro" >/dev/null
}

build() {
    case $1 in
    base) build_base ;;
    node | opencode) build_base && build_npm "$1" "$base_tag" ;;
    gemini | codex | claude | qwen | copilot) build node && build_npm "$1" "$(tag_of node)" ;;
    kiro) build_base && build_kiro ;;
    all) for agent in "${agents[@]}"; do build "$agent"; done ;;
    *) die "there is no image $1: base, node, ${agents[*]}, kiro, or all" ;;
    esac
}

case ${1:-} in
list) printf '%s\n' "${agents[@]}" ;;
tag) tag_of "${2:-}" ;;
*)
    # Two builds at once would bootstrap twice.
    exec 9>"${TMPDIR:-/tmp}/cofferdam-sandbox-images.lock"
    flock -w 900 9 || die "another build of the sandbox images is still under way"
    for name in "${@:-base}"; do build "$name"; done
    ;;
esac
