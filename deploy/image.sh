#!/usr/bin/env bash
#
# Builds the image of the worker and that of its rootless engine, says how large they are, and writes what is in each (CycloneDX 1.6, JSON).
#
#   deploy/image.sh [worker|engine|all]      (default: all)
#
# Where a Rust image can be had, the worker's programs are compiled in the first stage of the Dockerfile; elsewhere on this machine, by cargo.
# Where the Debian image cannot be pulled, the one that sandbox-images/build.sh bootstraps is taken, with packages that this machine's apt
# fetches; no container then needs a network. It never pushes an image anywhere.
#
# PROGRAMS       a directory with `cofferdam` and `inside`, built before: nothing is compiled
# FEATURES       features of the worker that is compiled, such as otel (default none)
# BASE_IMAGE     what to build on (default debian:12-slim; pulled unless present)
# BUILDER_IMAGE  what to compile in (default rust:1.95-bookworm; pulled unless present)
# PULL_TIMEOUT   seconds to try a pull (default 20)
# TAG            tag of both images (default: the version in Cargo.toml)
# SBOM_DIR       where the lists go (default target/image)
# CARGO          the cargo to run (default cargo)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
base=${BASE_IMAGE:-debian:12-slim}
builder=${BUILDER_IMAGE:-rust:1.95-bookworm}
cargo=${CARGO:-cargo}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
tag=${TAG:-$version}
sbom=${SBOM_DIR:-$root/target/image}
bootstrapped=cofferdam/debian:12
network=()

say() { printf 'image.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

is_present() { docker image inspect "$1" >/dev/null 2>&1; }

can_have() { is_present "$1" || timeout "${PULL_TIMEOUT:-20}" docker pull --quiet "$1" >/dev/null 2>&1; }

# base_with NAME PACKAGE...: sets `base` to one that has the packages, where the usual one cannot be had.
base_with() {
    local name=$1 container
    shift
    can_have "$base" && return 0
    is_present "$bootstrapped" || "$root/sandbox-images/build.sh" base
    is_present "$bootstrapped" || die "$base cannot be pulled, and $bootstrapped was not bootstrapped: set BASE_IMAGE to a Debian 12 that is here"
    base=cofferdam/$name-base:12 network=(--network none)
    is_present "$base" && return 0
    say "fetching packages for $base: $*"
    docker run --rm --network none "$bootstrapped" cat /var/lib/dpkg/status >"$scratch/status"
    mkdir -p "$scratch/$name/partial"
    apt-get install -qq -y --download-only --no-install-recommends -o Dir::State::status="$scratch/status" \
        -o Dir::Cache::archives="$scratch/$name" -o Debug::NoLocking=1 "$@" >/dev/null 2>&1 ||
        die "apt could not fetch $* (apt-get update first?)"
    container=$(docker create --network none --volume "$scratch/$name:/packages:ro" --env DEBIAN_FRONTEND=noninteractive "$bootstrapped" \
        sh -ec 'dpkg --install /packages/*.deb >/dev/null')
    docker start --attach "$container" >&2 || die "the packages could not be installed"
    docker commit "$container" "$base" >/dev/null
    docker rm --volumes "$container" >/dev/null
}

# Fills the context with programs or with sources, and sets `builder`.
programs_or_sources() {
    local context=$1
    if [ -n "${PROGRAMS:-}" ]; then
        say "with the programs in $PROGRAMS"
        install -D -m 0755 -t "$context/programs" "$PROGRAMS/cofferdam" "$PROGRAMS/inside"
        builder=$base
    elif can_have "$builder"; then
        say "compiling in $builder"
        git -C "$root" ls-files -z | (cd "$root" && xargs -0 tar --create --no-recursion --file - --) | tar --extract --file - --directory "$context"
    else
        command -v "$cargo" >/dev/null || die "$builder cannot be pulled, and there is no cargo here"
        say "$builder cannot be pulled: compiling on this machine"
        (cd "$root" && "$cargo" build --quiet --release --locked -p cofferdam --bin cofferdam ${FEATURES:+--features "$FEATURES"} >&2)
        install -D -m 0755 -t "$context/programs" "${CARGO_TARGET_DIR:-$root/target}/release/cofferdam" "$("$root/sandbox-images/static.sh")"
        builder=$base
    fi
}

# built IMAGE: says its size and writes the list of what is in it.
built() {
    local image=$1 name=$2
    shift 2
    docker run --rm --network none --entrypoint dpkg-query "$image" --show --showformat='${Package}\t${Version}\t${Architecture}\n' \
        >"$scratch/packages"
    mkdir -p "$sbom"
    python3 "$here/sbom.py" --name "$image" --version "$version" --image-id "$(docker image inspect --format '{{.Id}}' "$image")" \
        --packages "$scratch/packages" "$@" >"$sbom/$name.cdx.json"
    printf '%s: %s MB; what is in it: %s\n' "$image" \
        "$(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f", $1 / 1e6}')" "$sbom/$name.cdx.json"
}

build() {
    docker build --quiet ${network[@]+"${network[@]}"} --build-arg "BASE=$base" "$@" >/dev/null 2>"$scratch/build.log" || {
        cat "$scratch/build.log" >&2
        die "the image was not built"
    }
    # The classic builder leaves it behind, without a name.
    docker image prune --force --filter label=dev.cofferdam.stage=programs >/dev/null
}

worker() (
    image=cofferdam/worker:$tag
    base_with worker ca-certificates git tini
    mkdir "$scratch/context"
    programs_or_sources "$scratch/context"
    build --build-arg "BUILDER=$builder" --build-arg "FEATURES=${FEATURES:-}" --build-arg "COFFERDAM_COMMIT=$(git -C "$root" rev-parse HEAD 2>/dev/null || true)" \
        --file "$here/image/Dockerfile" --tag "$image" "$scratch/context"
    # A program that was built for another system would only fail at its start.
    docker run --rm --network none --read-only --cap-drop ALL "$image" --version >&2 || die "the programs do not run on $base"
    (cd "$root" && "$cargo" metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')") >"$scratch/metadata.json"
    built "$image" worker --metadata "$scratch/metadata.json"
)

engine() (
    image=cofferdam/engine:$tag
    base_with engine docker.io libcap2-bin rootlesskit uidmap
    build --tag "$image" "$here/engine"
    built "$image" engine
)

case ${1:-all} in
worker | engine) "$1" ;;
all) worker && engine ;;
*) die "usage: deploy/image.sh [worker|engine|all]" ;;
esac
