#!/usr/bin/env bash
#
# Builds the sandbox images on this machine.
#
#   sandbox-images/build.sh [base|opencode|all]     (default: base)
#   sandbox-images/build.sh tag-opencode            print the tag of the opencode image
#
# base      cofferdam/sandbox-base:12        Debian 12, git, an account `agent` with uid 1000
# opencode  cofferdam/sandbox-opencode:...   base, and the opencode binary from the npm registry, pinned
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

opencode_version=1.18.33
opencode_tag=cofferdam/sandbox-opencode:$opencode_version

say() { printf 'build.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Two builds at once would bootstrap twice.
exec 9>"${TMPDIR:-/tmp}/cofferdam-sandbox-images.lock"
flock -w 900 9 || die "another build of the sandbox images is still under way"

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

# Sets package and digest for this machine's processor. The digest is the `integrity` that the registry named for that version
# when it was pinned, in hexadecimal: `npm view opencode-linux-x64@VERSION dist.integrity`.
pin_opencode() {
    case $(uname -m) in
    x86_64)
        package=opencode-linux-x64
        digest=abfb7fde9d824f1393f72da4be37ac6ff2d969bdbed5eaa5861580d3605eea68d3b6662d341701b2b239c83a38170ed948f056da8c8c20630d46a88a4238805b
        ;;
    *) die "no opencode binary is pinned for $(uname -m)" ;;
    esac
}

build_opencode() {
    local package digest hash archive
    build_base
    pin_opencode
    hash=$(content_hash "$here/opencode/Dockerfile" <(printf '%s\n' "$package" "$digest" "$(image_label "$base_tag")"))
    is_current "$opencode_tag" "$hash" && return 0
    # The binary comes from the npm registry.
    "$here/../deploy/packages.sh" npm 9>&-
    say "fetching $package $opencode_version"
    (cd "$scratch" && npm pack --silent "$package@$opencode_version" >/dev/null) || die "npm could not fetch $package"
    archive=$scratch/$package-$opencode_version.tgz
    printf '%s  %s\n' "$digest" "$archive" | sha512sum --check --status || die "$package $opencode_version is not what was pinned"
    mkdir "$scratch/context"
    tar -xzf "$archive" -C "$scratch/context" --strip-components=2 package/bin/opencode
    chmod 0755 "$scratch/context/opencode"
    rm -f "$archive"
    say "building $opencode_tag"
    docker build --quiet --network none --build-arg "BASE=$base_tag" --label "$label=$hash" --tag "$opencode_tag" \
        --file "$here/opencode/Dockerfile" "$scratch/context" >/dev/null
}

case ${1:-base} in
base) build_base ;;
opencode | all) build_opencode ;;
tag-opencode) printf '%s\n' "$opencode_tag" ;;
*) die "usage: sandbox-images/build.sh [base|opencode|all|tag-opencode]" ;;
esac
